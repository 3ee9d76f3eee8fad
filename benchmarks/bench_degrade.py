"""What a degradation costs, and what training saves when shards hold it.

What one LR image costs (`degrade_cost.py`): one process with one thread, HR images of 512 px that were made of real
photos before any clock. Every plain method shrinks and enlarges each of them at 4x, `matlab` also at 2x and 3x; every
built-in recipe makes `--draws` LR images with draws of their own, and the time of each of its steps is added up. Wall
time of one call with one image; `cpu` in the result is the share of it in which the process had a CPU: below 1, others
had it. Figures are those of a round, and their median, minimum and maximum over the rounds. Limits hold for the median.

What training pays (`degrade_stream.py`): batches of aligned pairs of patches (HR, LR) reach the training process, which
copies each into the same two arrays. All ways have the same photos, HR of 512 px, recipe (realesrgan), scale 4 and
number of data workers, and the generator's own functions:

  online, 400 px       as Real-ESRGAN is trained: for every patch the JPEG is decoded, a random crop of 400 px degraded
                       with draws of its own, and the patch cut out of that
  online, 512 px       the same with the whole HR image degraded
  shards, 8 variants   this project's loader over npy shards that hold 8 degradations of each photo
  shards, 1 variant    the same with one

Each way runs in a fresh process, all once per round, every second round in reverse order, counted in steady state as in
`bench_stream`: what its store holds is read first, the first second and the batches that lay ready do not count. No
network is in the clock: these are the rates at which data can come, not those at which one trains, and a network that
takes fewer patches than come has no use for the rest. Online runs on the CPU here; Real-ESRGAN's own code has a GPU do
it, which does not train meanwhile.

Shards are made anew in each round; the whole command is on that clock, from its start to the last byte flushed. They
have paid for themselves after

    seconds of generating / (seconds of an epoch online - seconds of an epoch from shards)

epochs, an epoch being one patch from each photo: about as many as there are variants, as online each epoch makes one
LR per photo. All ratios are taken within a round. On a shared machine, look at minimum and maximum, and at the load
average before each round, first.

    python -m benchmarks.bench_degrade --photos DIR

With its defaults it takes some seven minutes on two cores.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.common import PhotoSet, RunFailedError, python_module, say, scratch_folder, timed_command
from benchmarks.degrade_photo import open_hr
from benchmarks.degrade_report import judge_costs, show, summarise_costs, summarise_training
from benchmarks.degrade_stream import SHARDS, WAYS, Bench
from benchmarks.options import output_option, photos_option, scratch_option
from benchmarks.peers.online_recipe import RECIPE
from benchmarks.peers.task import SCALE
from benchmarks.report import write_result
from benchmarks.stream_measure import Window
from benchmarks.stream_stores import HR_PX
from srshards.errors import PhotoError
from srshards.terminal.help import Command

_NUM_HR = 64
_PATCH_PX = 192
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def evenly(photos: PhotoSet, count: int, folder: Path) -> PhotoSet:
    """`count` photos from all parts of the list (classes differ in what they cost), as links in a new folder."""
    taken = min(count, len(photos.paths))
    paths = tuple(photos.paths[number * len(photos.paths) // taken] for number in range(taken))
    return PhotoSet(photos.root, paths, 0).first(taken, folder)


def write_hrs(photos: PhotoSet, path: Path) -> int:
    """HR images of up to _NUM_HR of the photos, from all parts of the list, as one array. Returns how many."""
    taken = min(_NUM_HR, len(photos.paths))
    paths = [photos.root / photos.paths[number * len(photos.paths) // taken] for number in range(taken)]
    try:
        np.save(path, np.stack([open_hr(path) for path in paths]))
    except PhotoError as error:
        raise click.UsageError(f"one of the photos does not do: {error}") from error
    return taken


def run_round(number: int, bench: Bench, hr_path: Path, draws: int) -> dict[str, Any]:
    """Everything once; in odd rounds backwards. What the degradations cost; the bench keeps the rest."""
    turn = 1 if number % 2 == 0 else -1
    command = python_module("benchmarks.degrade_cost", hr_path, number, draws)
    costs: dict[str, Any] = json.loads(timed_command(command, _ONE_THREAD)[1])
    for way in SHARDS[::turn]:
        bench.generate(way)
    os.sync()  # nobody's clock is to run while shards are written to the disk
    for way in WAYS[::turn]:
        bench.measure(way)
    return costs


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@photos_option
@click.option("--num-photos", type=click.IntRange(min=1), default=400, help="How many of them, from all its parts.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="How often everything is measured.")
@click.option("--workers", type=click.IntRange(min=0), default=2, help="Data workers; the generator's as well.")
@click.option("--draws", type=click.IntRange(min=1), default=256, help="LR images by each recipe, in each round.")
@click.option("--seconds", type=click.FloatRange(min=0.01), default=3.0, help="How long batches are counted.")
@click.option("--batches", type=click.IntRange(min=1), default=24, help="How many are counted at least.")
@click.option("--batch", type=click.IntRange(min=2), default=16, help="Pairs of patches in a batch.")
@scratch_option("Where to write, about 2 MB per photo.")
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
    """Measure what degradations cost, and what training saves when shards hold them.

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
    try:
        with scratch_folder(scratch) as folder:
            photo_set = evenly(all_photos, num_photos, folder / "photos")
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
                "load_average_1_min": load,  # before each round; the benchmark itself brings it to about `workers`
                "costs": costs,
                "limits": judge_costs(costs),
                "training": summarise_training(bench),
            }
            command = "python -m benchmarks.bench_degrade --photos DIR"
            write_result(output, f"{command} --rounds {rounds} --workers {workers}", folder, content)
    except RunFailedError as error:
        raise click.ClickException(str(error)) from error
    show(content)


if __name__ == "__main__":
    main()
