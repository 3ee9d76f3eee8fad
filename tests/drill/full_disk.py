"""The disk gets full at a random moment of `generate` and of training; then there is room again."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.drill.commands import Done
from tests.drill.folders import Problem, differences, hashes, leftovers, make_photos, other_training, unfinished
from tests.drill.kill_training import SMALL, small_shards
from tests.drill.session import Session
from tests.drill.small_disk import FILLER, fill, mounted, own_mounts
from tests.drill.warm import Warm, run_warm

_STEPS = ("--steps", 40, "--val-every", 2, "--workers", 0)
_GENERATE = ("-s", 2, 4, "--size", 128, "--shard-bytes", "700KB", "--workers", 0, "--auto")
_TRIES = 8  # for a moment after which the disk is needed once more


class _Work(NamedTuple):
    """A command, where it writes, the file that says that it has begun, and how it is gone on with."""

    words: tuple[Any, ...]
    again: tuple[Any, ...]
    output: Path
    begun: Path
    whole: Path
    seconds: float


def fill_up(session: Session) -> None:
    """By turns. What is left when the disk is full may be nothing, or enough for a part of what comes next."""
    own_mounts()
    photos = make_photos(session.scratch / "photos", 120, (150, 200))
    disk, whole = session.scratch / "disk", session.scratch / "whole"
    disk.mkdir()
    generate = ("shardgen", "generate", "-i", photos, *_GENERATE, "-o")
    training = ("trainer", "--shards", small_shards(session.scratch / "small"), *SMALL, *_STEPS, "--out")
    resume = ("trainer", "--run", "r", "--resume", "--out", disk)
    start_s = time.monotonic()
    assert run_warm(*generate, whole / "g").code == 0
    middle_s = time.monotonic()
    assert run_warm(*training, whole).code == 0
    end_s = time.monotonic()
    works = (
        _Work((*generate, disk / "g"), (*generate, disk / "g"), disk / "g", disk, whole / "g", middle_s - start_s),
        _Work((*training, disk), resume, disk / "r", disk / "r" / "config.yaml", whole / "r", end_s - middle_s),
    )
    for number in session.cases(lambda number: ("generate", "training")[number % 2]):
        if not any(_is_full_in_time(session, disk, works[number % 2], attempt) for attempt in range(_TRIES)):
            session.fail("crashed", "the disk was never full in time")
    session.tally.note = "a tmpfs that is filled, in half of the cases during `generate`, in the others during training"


def _is_full_in_time(session: Session, disk: Path, work: _Work, attempt: int) -> bool:
    """Whether the command came to feel that the disk was full; if so, the case is judged."""
    with mounted(disk):
        process = Warm(*work.words)
        while not work.begun.exists() and process.is_alive:
            time.sleep(0.001)
        time.sleep(session.rng.random() * work.seconds * 0.8 / 2**attempt)
        fill(disk, session.rng.choice((0, session.rng.randrange(1, 200_000))))
        first = process.wait()
        if first.code == 0:
            return False
        trains = work.output.name == "r"
        undisturbed = {} if trains else hashes(work.whole)
        problems = leftovers(work.output) + ([] if trains else unfinished(work.output, undisturbed))
        if not (first.is_named and first.code == 1 and "No space left on device" in first.err):
            problems.append(("crashed", f"expected a message about the full disk: {first}"))
        (disk / FILLER).unlink()
        second = run_warm(*(work.again if work.begun.exists() else work.words))
        session.ended("recovered", problems + _after(work, second, undisturbed))
        return True


def _after(work: _Work, second: Done, undisturbed: dict[str, str]) -> list[Problem]:
    if second.code or second.crash:
        return [("crashed", f"with room again: {second}")]
    return differences(work.output, undisturbed) if undisturbed else other_training(work.output, work.whole)
