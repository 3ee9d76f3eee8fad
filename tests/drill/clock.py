"""The clock was wrong, or is set back while a command runs: files of the future and of the past."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from tests.drill.folders import Problem, differences, hashes, make_photos, other_training
from tests.drill.kill_training import SMALL, small_shards
from tests.drill.session import Session
from tests.drill.warm import run_warm

_YEAR_S = 365 * 86_400
_LOOKS = 5
_STEPS = ("--steps", 8, "--val-every", 2, "--workers", 0)
_GENERATE = ("-s", 2, "--size", 64, "--shard-bytes", "100KB", "--workers", 0, "--auto")


def set_clock_back(seconds: float) -> None:
    """Let this process's clock be set back by that after it has been looked at a few times."""
    now, looks = time.time, count()
    time.time = lambda: now() - (abs(seconds) if next(looks) > _LOOKS else 0)


def touch(folder: Path, seconds: float) -> None:
    """Set the times of everything in the folder to so many seconds from now."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() + seconds,) * 2)


def set_back(session: Session) -> None:
    """By turns: outputs and runs of another time, a clock that is set back meanwhile, a photo that got older."""
    photos = make_photos(session.scratch / "photos", 30)
    generate = ("shardgen", "generate", "-i", photos, *_GENERATE, "-o")
    training = ("trainer", "--shards", small_shards(session.scratch / "small"), *SMALL, *_STEPS, "--out")
    whole = session.scratch / "whole"
    assert run_warm(*generate, whole / "g").code == 0
    assert run_warm(*training, whole).code == 0
    undisturbed = hashes(whole / "g")

    def shards_with_other_timestamps(seconds: float) -> Iterator[Problem]:
        shutil.copytree(whole / "g", session.scratch / "g")
        touch(session.scratch / "g", seconds)
        done = run_warm(*generate, session.scratch / "g")
        if done.code or "up to date" not in done.out:
            yield "silent", f"sound shards were made again: {done}"
        yield from differences(session.scratch / "g", undisturbed)

    def clock_set_back_during_generate(seconds: float) -> Iterator[Problem]:
        done = run_warm(*generate, session.scratch / "g", prepare=(set_clock_back, (seconds,)))
        if done.code or done.crash:
            yield "crashed", f"{done}"
        yield from differences(session.scratch / "g", undisturbed)

    def photo_replaced_by_an_older_one(seconds: float) -> Iterator[Problem]:
        shutil.copytree(whole / "g", session.scratch / "g")
        photo = session.rng.choice(sorted(photos.rglob("*.jpg")))
        before, times = photo.read_bytes(), photo.stat()
        other = session.rng.choice([p for p in sorted(photos.rglob("*.jpg")) if p != photo])
        content = other.read_bytes()
        size = max(len(content), len(before))
        for path, data in ((photo, before), (other, content)):  # of one size: only the time tells them apart
            path.write_bytes(data.ljust(size, b"\0"))
            os.utime(path, ns=(10**18, 10**18))
        assert run_warm(*generate, session.scratch / "g").code == 0
        photo.write_bytes(content.ljust(size, b"\0"))
        os.utime(photo, ns=(10**18, 10**18 - round(abs(seconds) * 1e9)))
        done = run_warm(*generate, session.scratch / "g")
        fresh = run_warm(*generate, session.scratch / "fresh")
        if done.code or fresh.code or "Shards: 1 built" not in done.out:
            yield "silent", f"a photo that changed, and got older, was not made again: {done}"
        yield from differences(session.scratch / "g", hashes(session.scratch / "fresh"))
        for path, data in ((photo, before), (other, content)):
            path.write_bytes(data)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def resume_with_other_timestamps(seconds: float) -> Iterator[Problem]:
        stopped = ("--out", session.scratch / "g")
        first = run_warm(*training[:-1], *stopped, prepare=(_stop_after, (4,)))
        touch(session.scratch / "g", seconds)
        done = run_warm("trainer", *stopped, "--run", "r", "--resume", prepare=(set_clock_back, (seconds,)))
        if first.code != 143 or done.code or done.crash:
            yield "crashed", f"{first}, {done}"
        else:
            yield from other_training(session.scratch / "g" / "r", whole / "r")

    kinds: tuple[Callable[[float], Iterator[Problem]], ...] = (
        shards_with_other_timestamps,
        photo_replaced_by_an_older_one,
        resume_with_other_timestamps,
        clock_set_back_during_generate,
    )
    for number in session.cases(lambda number: kinds[number % len(kinds)].__name__):
        seconds = session.rng.choice((-1, 1)) * session.rng.uniform(1, 30 * _YEAR_S)
        session.ended("recovered", kinds[number % len(kinds)](seconds))
        for name in ("g", "fresh"):
            shutil.rmtree(session.scratch / name, ignore_errors=True)
    session.tally.note = (
        f"by up to 30 years; cases alternate between {', '.join(k.__name__.replace('_', ' ') for k in kinds)}"
    )


def _stop_after(steps: int) -> None:
    """SIGTERM to oneself, as a cluster sends it, at the end of a step."""
    from trainer.training.learner import Learner

    step = Learner.step

    def stopping(self: Learner, index: int, *args: object) -> object:
        loss = step(self, index, *args)  # type: ignore[arg-type]
        if index + 1 == steps:
            os.kill(os.getpid(), 15)
        return loss

    Learner.step = stopping  # type: ignore[assignment,method-assign]
