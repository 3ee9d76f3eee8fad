"""Fill the disk at a random moment of `generate` and of training, then free space and run the command again."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from tests.drill.commands import Command, wait_until
from tests.drill.folders import differences, hashes, make_photos, partial_files, temporary_files
from tests.drill.session import Session
from tests.drill.small_disk import FILLER, fill, mounted, share_mounts, unshare_mounts
from tests.drill.training import config_path, resume_or_restart, training, training_differences
from tests.drill.warm import Warm, run_warm

_STEPS = ("--steps", 40, "--val-every", 2, "--workers", 0)
_GENERATE = ("-s", 2, 4, "--size", 128, "--shard-bytes", "700KB", "--workers", 0, "--auto", "-o")
_ATTEMPTS = 8  # to fill the disk before the command's last write


class _Work(NamedTuple):
    """A command, its output, the path that shows that it has started, the undisturbed output, and its duration."""

    command: Command
    output: Path
    started: Path
    whole: Path
    seconds: float


def fill_up(session: Session) -> None:
    """Alternate between `generate` and training. The space left is either 0 or up to 200 kB."""
    unshare_mounts()
    disk, whole = session.scratch / "disk", session.scratch / "whole"
    disk.mkdir()
    photos = make_photos(session.scratch / "photos", 120, (150, 200))
    generate = ("shardgen", "generate", "-i", photos, *_GENERATE)
    train = training(session.scratch / "small", *_STEPS)
    start_s = time.monotonic()
    run_warm(*generate, whole / "g").check()
    middle_s = time.monotonic()
    run_warm(*train, whole).check()
    end_s = time.monotonic()
    works = (
        _Work((*generate, disk / "g"), disk / "g", disk, whole / "g", middle_s - start_s),
        _Work((*train, disk), disk / "r", config_path(disk), whole / "r", end_s - middle_s),
    )
    for number in session.cases(lambda number: ("generate", "training")[number % 2]):
        if not any(_is_full_in_time(session, disk, works[number % 2], attempt) for attempt in range(_ATTEMPTS)):
            session.fail("crashed", "the command finished before the disk was full")
    session.tally.note = "a tmpfs that is filled, during `generate` in half of the cases, during training in the others"


def _is_full_in_time(session: Session, disk: Path, work: _Work, attempt: int) -> bool:
    """Return whether the command failed because the disk was full; if so, finish the case."""
    inside = (share_mounts, (os.getpid(),))
    with mounted(disk):
        process = Warm(*work.command, prepare=inside)
        wait_until(work.started.exists, process.poll)
        time.sleep(session.rng.random() * work.seconds * 0.8 / 2**attempt)
        fill(disk, session.rng.choice((0, session.rng.randrange(1, 200_000))))
        first = process.wait()
        if first.code == 0:
            return False
        problems = temporary_files(work.output)
        if not (first.is_reported and first.code == 1 and "No space left on device" in first.err):
            problems.append(("crashed", f"expected a message about the full disk: {first}"))
        (disk / FILLER).unlink()
        if work.output.name == "r":
            second = run_warm(*resume_or_restart(work.command, disk), prepare=inside)
            problems += second.problems_unless_success() or training_differences(work.output, work.whole)
        else:
            undisturbed = hashes(work.whole)
            problems += partial_files(work.output, undisturbed)
            second = run_warm(*work.command, prepare=inside)
            problems += second.problems_unless_success() or differences(work.output, undisturbed)
        session.finish("recovered", problems)
        return True
