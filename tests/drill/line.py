"""Run one fault of the drill in a separate process, so that a crash is counted and does not end the drill.

python -m tests.drill.line NAME TIMES SEED SCRATCH RESULT
"""

import faulthandler
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.drill.lines import LINES
from tests.drill.record import Tally
from tests.drill.session import LAST_CASE, Session
from tests.drill.warm import Warm

_LINE_TIMEOUT_S = 6 * 3600


def drill_line(name: str, times: int, seed: int) -> dict[str, Any]:
    """Run `times` cases, and return their tally as a dict with `fault`, `seed`, `seconds` and `clean`."""
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        scratch, result = Path(folder, "scratch"), Path(folder, "result.json")
        Path(folder).chmod(0o755)  # no_permission changes to another user
        scratch.mkdir()
        start_s = time.monotonic()
        done = Warm(__name__, name, times, seed, scratch, result).wait(_LINE_TIMEOUT_S)
        seconds = round(time.monotonic() - start_s, 1)
        if result.exists():
            tally = Tally(**json.loads(result.read_text()))
        else:
            case = (scratch / LAST_CASE).read_text() if (scratch / LAST_CASE).exists() else "before its first case"
            message = f"{case}: the process exited with {done.code}: {done.err[-3000:]}"
            tally = Tally(crashed=1, failures=[message])
    line = LINES[name]
    return {"fault": line.fault, "seed": seed, "seconds": seconds, **tally.as_dict(), "clean": tally.is_clean}


def main(name: str, times: str, seed: str, scratch: str, result: str) -> None:
    faulthandler.enable()
    session = Session(int(times), int(seed), Path(scratch))
    LINES[name].function()(session)
    Path(result).write_text(json.dumps(session.tally.as_dict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
