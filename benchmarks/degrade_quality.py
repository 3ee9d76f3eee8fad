"""Effect of degradations on a network: trained on three types of LR, evaluated on clean and on degraded photos.

Method: 4x shards of all photos, HR of 512 px, a tenth for validation, the same photos in each set. One `ultra_lite` is
trained on each set by the public command, with equal numbers of steps and equal seeds:

  cubic          LR by --method cubic, the most common choice
  realesrgan-1   LR by --degradation realesrgan, one fixed LR per photo
  realesrgan-8   the same with --variants 8: eight LRs per photo, a different one in each epoch

Each network is then evaluated on every validation photo as `trainer evaluate` does, once with clean LR (cubic) and once
with LR by realesrgan. This is one run with one seed: differences of a few hundredths of a dB are not significant.

    python -m benchmarks.degrade_quality --photos DIR --work FOLDER

Shards and networks of an earlier run in FOLDER are reused. Takes about ten minutes of CPU time per network.
"""

import json
import resource
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from benchmarks.common import PhotoSet, python_module, say, timed_command
from benchmarks.options import benchmark, output_option, photos_option
from benchmarks.report import print_table, write_result
from srshards.imaging.contact_sheet import Row, grid
from srshards.imaging.pixels import Pixels
from srshards.shards.opening import open_shards
from trainer.evaluation.evaluate import evaluate_pairs
from trainer.evaluation.metrics import mean_quality
from trainer.evaluation.pairs import Pair, shard_pairs
from trainer.inference.image_function import ImageFunction, as_function
from trainer.models import Network
from trainer.models.weights import load_network
from trainer.training.device import limit_threads

SETS: dict[str, tuple[object, ...]] = {
    "cubic": ("--method", "cubic"),
    "realesrgan-1": ("--degradation", "realesrgan"),
    "realesrgan-8": ("--degradation", "realesrgan", "--variants", 8),
}
EVALUATED_ON = {"clean": "cubic", "degraded": "realesrgan-1"}
_SCALE, _MODEL = 4, "ultra_lite"
_SHOWN = (0.6, 0.75, 0.9)  # quantiles of the photos by detail
_CELL_PX = 192


def make_sets(photos: PhotoSet, work: Path) -> None:
    """Generate the shards that do not exist yet."""
    for name, options in SETS.items():
        what = ("-i", photos.root, "-o", work / name, "-s", _SCALE, "--size", 512, "--val-fraction", 0.1, "--no-up")
        timed_command(python_module("shardgen", "generate", *what, *options, "--auto"))
        say(f"shards   {name}")


def train(name: str, work: Path, steps: int) -> float:
    """Train on a set, or reuse an earlier training; return its CPU seconds."""
    record = work / "runs" / f"{name}.json"
    if not record.exists():
        before = _cpu_s()
        data = ("--shards", _shards(work, name), "--out", work / "runs", "--run", name)
        validation = ("--val-every", max(1, steps // 3), "--val-samples", 20)
        timed_command(python_module("trainer", *data, "--model", _MODEL, "--steps", steps, *validation))
        record.write_text(json.dumps({"steps": steps, "cpu_s": round(_cpu_s() - before)}))
    found: dict[str, Any] = json.loads(record.read_text())
    if found["steps"] != steps:
        raise click.UsageError(
            f"{record} is of {found['steps']} steps; pass another --work, or --steps {found['steps']}"
        )
    say(f"trained  {name}: {found['cpu_s']} s of CPU")
    return float(found["cpu_s"])


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def evaluate_on(work: Path, name: str, on: str) -> dict[str, Any]:
    """Return means over the validation photos for the network and for bicubic."""
    pairs = shard_pairs(open_shards(_shards(work, on)), "val", upsampled=False)
    results = list(evaluate_pairs(_network(work, name), pairs))
    say(f"evaluated  {name} on {on}")
    network, bicubic = (mean_quality([getattr(one, of) for one in results]) for of in ("network", "bicubic"))
    return {"images": len(results), "network": asdict(network), "bicubic": asdict(bicubic)}


def draw(work: Path) -> Image.Image:
    """Draw some validation photos, clean and degraded: LR, bicubic, each network, HR."""
    networks = [as_function(_network(work, name), torch.device("cpu")) for name in SETS]
    pairs = {what: list(shard_pairs(open_shards(_shards(work, on)), "val", False)) for what, on in EVALUATED_ON.items()}
    ranked = sorted(range(len(pairs["clean"])), key=lambda index: _detail(pairs["clean"][index]))
    shown = [ranked[int(share * len(ranked))] for share in _SHOWN]
    rows = [
        Row(_cells(pairs[what][number], networks), what, pairs[what][number].name) for number in shown for what in pairs
    ]
    titles = ("LR", "bicubic", *(f"on {name}" for name in SETS), "HR")
    return grid(rows, titles)


def _detail(pair: Pair) -> float:
    """Return the mean difference of neighbouring pixels in the part that is shown."""
    return float(np.abs(np.diff(_centre(pair.hr).astype(np.int16), axis=1)).mean())


def _cells(pair: Pair, networks: list[ImageFunction]) -> list[Pixels]:
    nearest = pair.lr.repeat(pair.scale, axis=0).repeat(pair.scale, axis=1)
    images = [nearest, pair.bicubic(), *(network(pair.lr) for network in networks), pair.hr]
    return [_centre(image) for image in images]


def _centre(image: Pixels) -> Pixels:
    start = (image.shape[0] - _CELL_PX) // 2
    part = slice(start, start + _CELL_PX)
    return np.ascontiguousarray(image[part, part])


def _shards(work: Path, name: str) -> Path:
    return work / name / f"scale_{_SCALE}x"


def _network(work: Path, name: str) -> Network:
    return load_network(work / "runs" / name / "best.pth")


@benchmark
@photos_option
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for shards and runs; kept.")
@click.option("--steps", type=click.IntRange(min=1), default=3000, help="Optimiser steps of each training.")
@click.option(
    "--picture", type=click.Path(path_type=Path), help="Also draw some photos into this file, e.g. quality.jpg."
)
@output_option("degrade_quality.json")
def main(photos: Path | None, work: Path, steps: int, picture: Path | None, output: Path) -> None:
    """Measure the effect of degradations on a network.

    \b
    Example:
      python -m benchmarks.degrade_quality --photos photos --work work
    """
    limit_threads()
    photo_set = PhotoSet.of(photos)
    make_sets(photo_set, work)
    cpu_s = {name: train(name, work, steps) for name in SETS}
    quality = {name: {what: evaluate_on(work, name, on) for what, on in EVALUATED_ON.items()} for name in SETS}
    settings = {"model": _MODEL, "scale": _SCALE, "steps": steps, "cpu_s": cpu_s}
    content = {"photos": photo_set.describe(), "settings": settings, "quality": quality}
    write_result(
        output, f"python -m benchmarks.degrade_quality --photos DIR --work FOLDER --steps {steps}", work, content
    )
    if picture:
        draw(work).save(picture, quality=88, subsampling=0)
    bicubic = {what: quality["cubic"][what]["bicubic"] for what in EVALUATED_ON}
    rows = [["bicubic", *(_text(bicubic[what]) for what in EVALUATED_ON)]]
    rows += [[name, *(_text(quality[name][what]["network"]) for what in EVALUATED_ON)] for name in SETS]
    print_table("PSNR-Y and SSIM-Y", ("trained on", *(f"{what} photos" for what in EVALUATED_ON)), rows)


def _text(quality: dict[str, float]) -> str:
    return f"{quality['psnr_y']:.2f} dB, {quality['ssim_y']:.4f}"


if __name__ == "__main__":
    main()
