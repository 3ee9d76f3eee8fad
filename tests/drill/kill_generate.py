"""Kill `generate` with SIGKILL at a random moment, then run the same command again."""

import os
import shutil
import signal
import time

from tests.drill import commands
from tests.drill.folders import differences, hashes, make_photos, partial_files, wait_for_group
from tests.drill.session import Session

_ARGS = ("-s", 2, 4, "--size", 128, "--shard-bytes", "2MB", "--workers", 2, "--auto", "-o")


def kill_generate(session: Session) -> None:
    """Kill the parent or its process group, at any time from its start; run the command again without waiting."""
    generate = ("shardgen", "generate", "-i", make_photos(session.scratch / "photos", 240, (150, 200)), *_ARGS)
    start_s = time.monotonic()
    commands.run(*generate, session.scratch / "whole").check()
    run_s = time.monotonic() - start_s
    undisturbed = hashes(session.scratch / "whole")
    for number in session.cases():
        output = session.scratch / f"out-{number}"
        share, kill = session.rng.random(), session.rng.choice((os.kill, os.killpg))
        process = commands.start(*generate, output)
        time.sleep(share * run_s)
        kill(process.pid, signal.SIGKILL)
        process.wait()
        problems = partial_files(output, undisturbed)
        problems += commands.run(*generate, output).problems_unless_success()
        wait_for_group(process.pid)
        session.finish("recovered", problems + differences(output, undisturbed))
        shutil.rmtree(output)
    session.tally.note = f"an undisturbed run takes {run_s:.1f} s"
