"""Cost of degradations, and the time that training saves when shards contain them.

Cost of one LR image (`degrade_cost.py`): one process with one thread, HR images of 512 px prepared from
real photos. Every plain method downsamples and upsamples each of them at 4x, `matlab` also at 2x and 3x; every built-in
recipe degrades `--draws` images with separately drawn parameters, and the time of each of its steps is summed. Times
are wall times of one call with one image; `cpu` in the result is the fraction of that time in which the process was
running on a CPU: below 1, other processes were. Limits apply to the median over the rounds.

Cost for training (`degrade_stream.py`): batches of aligned pairs of patches (HR, LR) reach the training process, which
copies each into the same two arrays. All cases have the same photos, HR of 512 px, recipe (realesrgan), scale 4 and
number of data workers, and use the generator's own functions:

  online, 400 px       as Real-ESRGAN is trained: for every patch the JPEG is decoded, a random crop of 400 px degraded
                       with its own draws, and the patch cut from that
  online, 512 px       the same with the complete HR image degraded
  shards, 8 variants   this project's loader over npy shards with 8 degradations of each photo
  shards, 1 variant    the same with one

Each case runs in a fresh process, all once per round, in reverse order in every second round, counted in steady state
as in `bench_stream`: the store is in the page cache, and the first second and prefetched batches do not count. No
network is involved: these are the rates at which data can arrive, and a network that consumes fewer patches gains
nothing from more. Online degradation runs on the CPU here; Real-ESRGAN's own code runs it on the GPU, which does not
train meanwhile.

Shards are generated again in each round; the whole command is timed, until the last byte is flushed. They pay off
after

    seconds of generating / (seconds of an epoch online - seconds of an epoch from shards)

epochs, an epoch being one patch from each photo: about as many as there are variants, because each online epoch derives
one LR per photo. Ratios are taken within a round. On a shared machine, look at minimum, maximum and the load average
before each round first.

    python -m benchmarks.bench_degrade --photos DIR

With its defaults it takes about seven minutes on two cores.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.common import PhotoSet, alternating, python_module, say, scratch_folder, timed_json
from benchmarks.degrade_photo import open_hr
from benchmarks.degrade_report import check_limits, show, summarise_costs, summarise_training
from benchmarks.degrade_stream import CASES, SHARDS, Bench
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option
from benchmarks.peers.online_recipe import RECIPE
from benchmarks.peers.task import SCALE
from benchmarks.report import write_result
from benchmarks.stream_measure import Window
from benchmarks.stream_stores import HR_PX
from srshards.errors import PhotoError

_NUM_HR = 64
_PATCH_PX = 192
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def evenly_spaced(photos: PhotoSet, count: int, folder: Path) -> PhotoSet:
    """Link `count` photos, evenly spaced in the list (classes differ in cost), into a new folder."""
    taken = min(count, len(photos.paths))
    paths = tuple(photos.paths[number * len(photos.paths) // taken] for number in range(taken))
    return PhotoSet(photos.root, paths, 0).first(taken, folder)


def write_hrs(photos: PhotoSet, path: Path) -> int:
    """Write HR images of up to _NUM_HR photos, evenly spaced in the list, as one array; return their number."""
    taken = min(_NUM_HR, len(photos.paths))
    paths = [photos.root / photos.paths[number * len(photos.paths) // taken] for number in range(taken)]
    try:
        np.save(path, np.stack([open_hr(path) for path in paths]))
    except PhotoError as error:
        raise click.UsageError(f"one of the photos cannot be used: {error}") from error
    return taken


def run_round(number: int, bench: Bench, hr_path: Path, draws: int) -> dict[str, Any]:
    """Run one round; return the costs. `bench` records the other results."""
    costs = timed_json(python_module("benchmarks.degrade_cost", hr_path, number, draws), _ONE_THREAD)
    for case in alternating(SHARDS, number):
        bench.generate(case)
    os.sync()  # so that no case is timed while shards are written to disk
    for case in alternating(CASES, number):
        bench.measure(case)
    return costs


@benchmark
@photos_option
@click.option("--num-photos", type=click.IntRange(min=1), default=400, help="Number of photos to use, evenly spaced.")
@rounds_option(3, "Number of rounds.")
@click.option("--workers", type=click.IntRange(min=0), default=2, help="Workers of data loading and of generating.")
@click.option("--draws", type=click.IntRange(min=1), default=256, help="LR images by each recipe in each round.")
@click.option("--seconds", type=click.FloatRange(min=0.01), default=3.0, help="Seconds in which batches are counted.")
@click.option("--batches", type=click.IntRange(min=1), default=24, help="Minimum number of batches counted.")
@click.option("--batch", type=click.IntRange(min=2), default=16, help="Pairs of patches per batch.")
@scratch_option("Folder for temporary files, about 2 MB per photo.")
@output_option("degrade.json")
def main(
    photos: Path | None,
    num_photos: int,
    rounds: int,
    workers: int,
    draws: int,
    seconds: float,
    batches: int,
    batch: int,
    scratch: Path | None,
    output: Path,
) -> None:
    """Measure the cost of degradations, and the time that training saves when shards contain them.

    \b
    Example:
      python -m benchmarks.bench_degrade --photos photos --rounds 3 --workers 2
    """
    all_photos = PhotoSet.of(photos)
    window = Window(
        seconds,
        batches,
        warm_up_s=min(seconds, Window.warm_up_s),
        warm_up_batches=min(batches, Window.warm_up_batches),
    )
    with scratch_folder(scratch) as folder:
        photo_set = evenly_spaced(all_photos, num_photos, folder / "photos")
        hr_path = folder / "hr.npy"
        num_hr = write_hrs(photo_set, hr_path)
        bench = Bench(photo_set, folder, window, batch, _PATCH_PX, workers)
        found, load = [], []
        for number in range(rounds):
            load.append(round(os.getloadavg()[0], 2))
            say(f"round {number + 1}/{rounds}")
            found.append(run_round(number, bench, hr_path, draws))
        costs = summarise_costs(found)
        settings = {
            "recipe": RECIPE,
            "scale": SCALE,
            "size_px": HR_PX,
            "hr_images": num_hr,
            "draws": draws,
            "patch_px": _PATCH_PX,
            "batch": batch,
            "workers": workers,
            "rounds": rounds,
            "window": asdict(window),
        }
        content = {
            "photos": photo_set.describe(),
            "settings": settings,
            "load_average_1_min": load,  # before each round; the benchmark itself raises it to about `workers`
            "costs": costs,
            "limits": check_limits(costs),
            "training": summarise_training(bench),
        }
        command = "python -m benchmarks.bench_degrade --photos DIR"
        write_result(output, f"{command} --rounds {rounds} --workers {workers}", folder, content)
    show(content)


if __name__ == "__main__":
    main()
