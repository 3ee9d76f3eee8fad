"""SIGKILL at a random moment of `generate`, and the same command again."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.drill import commands
from tests.drill.folders import differences, hashes, leftovers, make_photos, unfinished, wait_for_group
from tests.drill.session import Session

_WORDS = ("-s", 2, 4, "--size", 128, "--shard-bytes", "2MB", "--workers", 2, "--auto")


def kill_generate(session: Session) -> None:
    """The parent alone or its whole group, from the start of the process on; the same command at once again."""
    photos = make_photos(session.scratch / "photos", 240, (150, 200))
    words = ("generate", "-i", photos, *_WORDS)
    start_s = time.monotonic()
    first = commands.run("shardgen", *words, "-o", session.scratch / "whole")
    whole_s = time.monotonic() - start_s
    assert first.code == 0, first.err
    undisturbed = hashes(session.scratch / "whole")
    for number in session.cases():
        output = session.scratch / f"out-{number}"
        share, kill = session.rng.random(), session.rng.choice((os.kill, os.killpg))
        kill_after(session, share * whole_s, kill, words, output, undisturbed)
        shutil.rmtree(output)
    session.tally.note = f"an undisturbed run takes {whole_s:.1f} s"


def kill_after(
    session: Session,
    seconds: float,
    kill: Callable[[int, int], None],
    words: tuple[object, ...],
    output: Path,
    undisturbed: dict[str, str],
) -> None:
    """One case."""
    process = commands.start("shardgen", *words, "-o", output)
    time.sleep(seconds)
    kill(process.pid, signal.SIGKILL)
    process.wait()
    problems = unfinished(output, undisturbed)
    again = commands.run("shardgen", *words, "-o", output)
    wait_for_group(process.pid)
    if again.crash or again.code:
        problems.append(("crashed", again.crash or again.err))
    problems += differences(output, undisturbed) if output.exists() else [("samples_lost", "nothing was made")]
    session.ended("recovered", problems or leftovers(output))
