"""`python -m trainer evaluate`: PSNR and SSIM of a network beside bicubic's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from srshards.errors import UsageError
from srshards.format import Address
from srshards.process.interrupt import loading
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS, BYTE_SIZE, PATH
from srshards.terminal.text import Bar, Choice, say
from trainer.commands.tables import quality_table
from trainer.commands.types import Tile

if TYPE_CHECKING:  # they load PyTorch, for which neither help nor completion should wait
    from srshards.shards.folder import Shards
    from trainer.evaluation.evaluate import Pair, PairResult
    from trainer.evaluation.metrics import Quality
    from trainer.models import Network


@click.command("evaluate", cls=Command, short_help="PSNR and SSIM of a network, beside bicubic's.")
@click.option("--weights", type=PATH, required=True, help="model.pth or best.pth of a run, or Real-ESRGAN's.")
@click.option("--shards", type=ADDRESS, help="Folder of one scale: its validation split is judged.")
@click.option("--cache", type=PATH, help="As for training.")
@click.option("--cache-bytes", type=BYTE_SIZE, help="As for training.  [default: most of what is free there]")
@click.option("--split", type=Choice(("train", "val")), default="val", show_default=True, help="With --shards.")
@click.option("--hr", type=PATH, help="Folder of HR photos: LR is made of them with the papers' bicubic.")
@click.option("--scale", type=click.IntRange(2, 8), help="With --hr.  [default: the network's]")
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU if there is one."
)
@click.option("--tile", type=Tile(), default="auto", show_default=True, help="As for upscale.")
@click.option("--json", "as_json", is_flag=True, help="Print every image's figures, for programs.")
def evaluate_command(
    weights: Path,
    shards: Address | None,
    cache: Path | None,
    cache_bytes: int | None,
    split: str,
    hr: Path | None,
    scale: int | None,
    device: str,
    tile: int | Literal["auto"] | None,
    as_json: bool,
) -> None:
    """Measure PSNR and SSIM, of RGB and of Y (BT.601), without a border of `scale` px, beside bicubic's.

    \b
    Examples:
      python -m trainer evaluate --weights runs/lite-4x/best.pth --shards shards/scale_4x
      python -m trainer evaluate --weights runs/lite-4x/best.pth --hr photos --scale 4
    """
    if (shards is None) == (hr is None):
        raise UsageError("name what to judge on: either --shards shards/scale_4x, or --hr FOLDER of sharp photos")
    with loading():
        from srshards.shards.opening import open_shards
        from trainer.evaluation.evaluate import evaluate_pairs
        from trainer.evaluation.metrics import mean_quality
        from trainer.inference.image_function import as_function
        from trainer.models.weights import load_network
        from trainer.training.device import choose_device, limit_threads

    limit_threads()
    on = choose_device(device)
    network = load_network(weights).to(on)
    pairs, scale, data = (
        _pairs_of_shards(network, weights, open_shards(shards, cache=cache, cache_bytes=cache_bytes), split, scale)
        if shards
        else _pairs_of_photos(network, weights, hr, scale)
    )
    function = as_function(network, on, tile)
    results = _figures(Bar(evaluate_pairs(function, pairs), desc="images", unit=""))
    if not results:
        raise UsageError(f"{data}: there are no images in it")
    means = {name: mean_quality([figures[name] for _, figures in results]) for name in ("bicubic", "network")}
    if as_json:
        images = [{"image": name, **{k: _plain(v) for k, v in figures.items()}} for name, figures in results]
        mean = {name: _plain(quality) for name, quality in means.items()}
        found = {"weights": str(weights), "data": data, "scale": scale, "mean": mean, "images": images}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2, allow_nan=False))
        return
    say(f"{weights} ({network.spec.name}, {network.spec.scale}x) on {data}, {len(results):,} images at {scale}x")
    click.echo(quality_table(means))


def _pairs_of_shards(
    network: Network, weights: Path, shards: Shards, split: str, scale: int | None
) -> tuple[Iterator[Pair], int, str]:
    from trainer.evaluation.evaluate import restores, shard_pairs

    folder = shards.path
    if scale not in (None, shards.scale):
        raise UsageError(f"--scale {scale}: the shards in {folder} are {shards.scale}x; leave --scale out")
    upsampled = restores(network.spec.scale, shards.scale, str(weights), str(folder))
    if upsampled and not shards.manifest.has_up:
        raise UsageError(
            f"{weights} restores enlarged images, but {folder} has none; generate without --no-up, or judge on photos: "
            f"--hr PHOTOS --scale {shards.scale}"
        )
    return shard_pairs(shards, split, upsampled), shards.scale, f"{folder} ({split})"


def _pairs_of_photos(
    network: Network, weights: Path, folder: Path | None, scale: int | None
) -> tuple[Iterator[Pair], int, str]:
    from trainer.evaluation.evaluate import photo_pairs, restores

    assert folder is not None
    if scale is None and network.spec.scale == 1:
        raise UsageError(f"{weights} restores enlarged images: say how much they are enlarged with --scale, e.g. 4")
    scale = scale or network.spec.scale
    upsampled = restores(network.spec.scale, scale, str(weights), f"--scale {scale}")
    return photo_pairs(folder, scale, upsampled), scale, str(folder)


def _figures(results: Iterable[PairResult]) -> list[tuple[str, dict[str, Quality]]]:
    """The figures alone: a thousand images' pixels would fill the memory."""
    return [(one.pair.name, {"bicubic": one.bicubic, "network": one.network}) for one in results]


def _plain(quality: Quality) -> dict[str, float | None]:
    """JSON has no infinity: the PSNR of equal images becomes null."""
    return {name: value if isfinite(value) else None for name, value in asdict(quality).items()}
