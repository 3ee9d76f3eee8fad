"""Set the clock back while a command runs, and give files timestamps of the future and of the past."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from tests.drill.commands import Problem
from tests.drill.folders import differences, hashes, make_photos
from tests.drill.session import Session
from tests.drill.training import resume_or_restart, stop_after, training, training_differences
from tests.drill.warm import run_warm

_YEAR_S = 365 * 86_400
_NUM_READINGS = 5  # of the correct clock
_STEPS = ("--steps", 8, "--val-every", 2, "--workers", 0)
_GENERATE = ("-s", 2, "--size", 64, "--shard-bytes", "100KB", "--workers", 0, "--auto", "-o")


def set_clock_back(seconds: float) -> None:
    """Set the clock of this process back after a few readings."""
    now, readings = time.time, count()
    time.time = lambda: now() - (abs(seconds) if next(readings) > _NUM_READINGS else 0)


def touch(folder: Path, seconds: float) -> None:
    """Set the times of a folder and its content to so many seconds from now."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() + seconds,) * 2)


def set_back(session: Session) -> None:
    """Alternate between the four nested functions, each of which returns the problems of one case."""
    photos, whole, output = (session.scratch / name for name in ("photos", "whole", "g"))
    generate = ("shardgen", "generate", "-i", make_photos(photos, 30), *_GENERATE)
    train = training(session.scratch / "small", *_STEPS)
    run_warm(*generate, whole / "g").check()
    run_warm(*train, whole).check()
    undisturbed = hashes(whole / "g")

    def shards_with_other_timestamps(seconds: float) -> Iterator[Problem]:
        shutil.copytree(whole / "g", output)
        touch(output, seconds)
        result = run_warm(*generate, output)
        if result.code or "up to date" not in result.out:
            yield "silent", f"complete shards were rebuilt: {result}"
        yield from differences(output, undisturbed)

    def clock_set_back_during_generate(seconds: float) -> Iterator[Problem]:
        yield from run_warm(*generate, output, prepare=(set_clock_back, (seconds,))).problems_unless_success()
        yield from differences(output, undisturbed)

    def photo_replaced_by_an_older_one(seconds: float) -> Iterator[Problem]:
        shutil.copytree(whole / "g", output)
        photo = session.rng.choice(sorted(photos.rglob("*.jpg")))
        before, times = photo.read_bytes(), photo.stat()
        other = session.rng.choice([p for p in sorted(photos.rglob("*.jpg")) if p != photo])
        content = other.read_bytes()
        size = max(len(content), len(before))
        for path, data in ((photo, before), (other, content)):  # of the same size, so that only the time differs
            path.write_bytes(data.ljust(size, b"\0"))
            os.utime(path, ns=(10**18, 10**18))
        run_warm(*generate, output).check()
        photo.write_bytes(content.ljust(size, b"\0"))
        os.utime(photo, ns=(10**18, 10**18 - round(abs(seconds) * 1e9)))
        result = run_warm(*generate, output)
        fresh = run_warm(*generate, session.scratch / "fresh")
        if result.code or fresh.code or "Shards: 1 built" not in result.out:
            yield "silent", f"the shard of a photo that was replaced by an older one was not rebuilt: {result}"
        yield from differences(output, hashes(session.scratch / "fresh"))
        for path, data in ((photo, before), (other, content)):
            path.write_bytes(data)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def resume_with_other_timestamps(seconds: float) -> Iterator[Problem]:
        stopped = run_warm(*train, output, prepare=(stop_after, (4,)))
        touch(output, seconds)
        result = run_warm(*resume_or_restart(train, output), prepare=(set_clock_back, (seconds,)))
        if stopped.code != 143 or result.code or result.crash:
            yield "crashed", f"{stopped}, {result}"
        else:
            yield from training_differences(output / "r", whole / "r")

    kinds: tuple[Callable[[float], Iterator[Problem]], ...] = (
        shards_with_other_timestamps,
        photo_replaced_by_an_older_one,
        resume_with_other_timestamps,
        clock_set_back_during_generate,
    )
    for number in session.cases(lambda number: kinds[number % len(kinds)].__name__):
        seconds = session.rng.choice((-1, 1)) * session.rng.uniform(1, 30 * _YEAR_S)
        session.finish("recovered", kinds[number % len(kinds)](seconds))
        for folder in (output, session.scratch / "fresh"):
            shutil.rmtree(folder, ignore_errors=True)
    session.tally.note = (
        f"by up to 30 years; cases alternate between {', '.join(k.__name__.replace('_', ' ') for k in kinds)}"
    )
