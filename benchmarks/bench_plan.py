"""Overhead of the generator apart from pixels: planning a million photos, an up-to-date run, memory.

  plan     plan_million.py in a fresh process, `--rounds` times: seconds to plan 1,000,000 synthetic photos and to hash
           the photo list of every shard, and the peak memory of that process
  start    1,000 finished shards are generated from tiny synthetic JPEGs; then the same command again, `--rounds` times,
           timed as a whole: it lists the photos, plans, reads every marker, checks every tar and index, and writes
           nothing. Everything that it reads is in the page cache
  memory   the generator on the photos of `--photos` (N), and on four links to the same folder (4N: the same mix of
           photo sizes), with default settings; and on N with three scales. memory.py watches every process; the largest
           child is a worker

Each limit is checked against the worst round, not the median.

    python -m benchmarks.bench_plan --photos DIR --rounds 5 --workers 2
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import cv2
import numpy as np

from benchmarks.common import PhotoSet, RunFailedError, python_module, say, scratch_folder, timed_command, timed_json
from benchmarks.memory import watch_memory
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option, workers_option
from benchmarks.report import print_table, spread, verdict, write_result

_MILLION = 1_000_000
_MAX_PLAN_S, _MAX_PLAN_BYTES = 30.0, 1e9
_MAX_START_S = 2.0
_MAX_WORKER_BYTES = 350e6
_MAX_GROWTH_BYTES = 10e6  # from N to 4N photos; what the allocator retains differs by a few MB between runs

# A shard has at least eight photos on average, and a split has a power of two of shards: this gives 1,024 for training.
_NUM_TINY_PHOTOS = 8_600
_TINY_PX = 32


def measure_plan(rounds: int) -> dict[str, Any]:
    """Measure planning a million photos, in a fresh process each time."""
    runs = [timed_json(python_module("benchmarks.plan_million", _MILLION)) for _ in range(rounds)]
    return {
        "photos": _MILLION,
        "shards": runs[0]["shards"],
        "total_s": spread([run["total_s"] for run in runs]),
        "plan_s": spread([run["plan_s"] for run in runs]),
        "digests_s": spread([run["digests_s"] for run in runs]),
        "peak_rss_bytes": spread([run["peak_rss_bytes"] for run in runs], 0),
    }


def measure_start(scratch: Path, rounds: int, workers: int) -> dict[str, Any]:
    """Generate shards once, then time the same command when all shards are up to date."""
    photos, output = scratch / "tiny_photos", scratch / "tiny_shards"
    make_tiny_photos(photos)
    options = ["--size", _TINY_PX, "--shard-bytes", "1KB", "--workers", workers, "--auto"]
    command = python_module("shardgen", "generate", "-i", photos, "-o", output, *options)
    first_s, _ = timed_command(command)
    times_s = [_up_to_date(command) for _ in range(rounds)]
    totals = json.loads((output / "scale_4x" / "manifest.json").read_bytes())["totals"]
    return {
        "photos": _NUM_TINY_PHOTOS,
        "shards": totals["shards"],
        "made_in_s": round(first_s, 2),
        "up_to_date_s": spread(times_s, 3),
    }


def make_tiny_photos(folder: Path) -> None:
    """Write _NUM_TINY_PHOTOS different JPEGs of smooth noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(_NUM_TINY_PHOTOS):
        coarse = random.integers(0, 256, (4, 4, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), cv2.resize(coarse, (_TINY_PX, _TINY_PX)))


def _up_to_date(command: list[str]) -> float:
    seconds, printed = timed_command(command)
    if "up to date" not in printed:
        raise RunFailedError(f"expected every shard to be up to date, got: {printed}")
    return seconds


def measure_memory(photos: PhotoSet, scratch: Path, workers: int) -> dict[str, Any]:
    """Return peak memory for N photos, for 4N, and for N with three scales."""
    return {
        "4x, N photos": _measure_peak(photos, 1, scratch, workers, [4]),
        "4x, 4N photos": _measure_peak(photos, 4, scratch, workers, [4]),
        "2,3,4x, N photos": _measure_peak(photos, 1, scratch, workers, [2, 3, 4]),
    }


def _measure_peak(photos: PhotoSet, times: int, scratch: Path, workers: int, scales: list[int]) -> dict[str, int]:
    with _linked(photos.root, times, scratch / "links") as folder:
        output = scratch / "output"
        options = ["--workers", workers, "--auto", "--scales", *scales]
        try:
            peak = watch_memory(python_module("shardgen", "generate", "-i", folder, "-o", output, *options))
        finally:
            rmtree(output, ignore_errors=True)
    return {"photos": times * len(photos.paths), **{f"{key}_bytes": value for key, value in asdict(peak).items()}}


@contextmanager
def _linked(root: Path, times: int, folder: Path) -> Iterator[Path]:
    """Yield a folder with `times` links to `root`, and delete it afterwards."""
    folder.mkdir()
    for number in range(times):
        (folder / str(number)).symlink_to(root)
    yield folder
    rmtree(folder)


def check(plan: Mapping[str, Any], start: Mapping[str, Any], memory: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each limit, the worst of its rounds, and whether it is met."""
    largest = max(run["child_rss_bytes"] for run in memory.values())
    growth = memory["4x, 4N photos"]["child_rss_bytes"] - memory["4x, N photos"]["child_rss_bytes"]
    return [
        _checked("plan of 1,000,000 photos, s", plan["total_s"]["max"], _MAX_PLAN_S),
        _checked("plan of 1,000,000 photos, peak MB", plan["peak_rss_bytes"]["max"] / 1e6, _MAX_PLAN_BYTES / 1e6),
        _checked(f"start with {start['shards']:,} finished shards, s", start["up_to_date_s"]["max"], _MAX_START_S),
        _checked("worker, peak resident MB", largest / 1e6, _MAX_WORKER_BYTES / 1e6),
        _checked("worker, growth from N to 4N photos, MB", growth / 1e6, _MAX_GROWTH_BYTES / 1e6),
    ]


def _checked(name: str, worst: float, below: float) -> dict[str, Any]:
    return {"name": name, "below": below, "worst": round(worst, 2), "met": worst < below}


@benchmark
@photos_option
@rounds_option(5, "Number of measurements of each time.")
@workers_option("Workers of the generator.", minimum=1)
@scratch_option("Folder for temporary files.")
@output_option("plan.json")
def main(photos: Path | None, rounds: int, workers: int, scratch: Path | None, output: Path) -> None:
    """Measure planning, start-up and memory of the generator.

    \b
    Example:
      python -m benchmarks.bench_plan --photos photos --rounds 3
    """
    photo_set = PhotoSet.of(photos)
    with scratch_folder(scratch) as folder:
        say("planning a million photos")
        plan = measure_plan(rounds)
        say("generating a thousand shards, then running again")
        start = measure_start(folder, rounds, workers)
        say("watching the workers' memory")
        memory = measure_memory(photo_set, folder, workers)
        checks = check(plan, start, memory)
        command = f"python -m benchmarks.bench_plan --photos DIR --rounds {rounds} --workers {workers}"
        settings = {"rounds": rounds, "workers": workers}
        content = {"photos": photo_set.describe(), "settings": settings, "plan": plan, "start": start}
        write_result(output, command, folder, {**content, "memory": memory, "checks": checks})
    rows = [[c["name"], f"{c['worst']:,.2f}", f"{c['below']:,.0f}", verdict(c["met"])] for c in checks]
    print_table("Limits, against the worst of the rounds", ("", "measured", "below", ""), rows)


if __name__ == "__main__":
    main()
