"""One way in one process: its store is written, or its batches are counted and a line of JSON is printed.

    python -m benchmarks.stream_run MODULE TASK_JSON WINDOW_JSON untouched|copied

It imports only what the way itself needs, and runs in whatever environment has that.
"""

import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks.peers.task import SCALE, Task
from benchmarks.stream_measure import CopyOut, Counted, Window, check, count, leave

MARK = "STREAM_RESULT "  # in front of the result, among whatever the libraries print


def main(module: str, task_json: str, window_json: str = "", touch: str = "untouched") -> None:
    """Write the store without a window; count batches with one. Ends without waiting for anybody's threads."""
    way, task = import_module(f"benchmarks.peers.{module}"), Task.from_json(task_json)
    if not window_json:
        way.prepare(task)
        return
    read_all(Path(task.store))
    batches = iter(way.batches(task))
    small_patch = task.patch // SCALE if task.input == "lr" else task.patch
    check(next(batches), task.batch, task.patch, small_patch)
    counted = count(batches, Window(**json.loads(window_json)), leave if touch == "untouched" else CopyOut())
    print(MARK + json.dumps(asdict(counted)), flush=True)
    getattr(batches, "close", lambda: None)()  # a generator's: workers end, and what lies in shared memory goes


def result_in(output: str) -> Counted:
    """The result that a run printed. ValueError when there is none."""
    for line in output.splitlines():
        if line.startswith(MARK):
            return Counted(**json.loads(line.removeprefix(MARK)))
    raise ValueError("it printed no result")


def read_all(folder: Path) -> None:
    """Read every file once, so that the page cache has it."""
    buffer = bytearray(1 << 24)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # libraries' threads and workers may wait for each other; whoever started this ends the whole group
