"""`python -m trainer evaluate`: PSNR and SSIM of a network, compared with bicubic."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from srshards.terminal.text import Bar, Choice, plural, say
from trainer.commands.tables import quality_table
from trainer.commands.types import Tile

if TYPE_CHECKING:  # these import PyTorch, which is too slow for help and completion
    from srshards.shards.folder import Shards
    from trainer.evaluation.metrics import Quality
    from trainer.evaluation.pairs import Pair
    from trainer.models import Network


@click.command("evaluate", cls=Command, short_help="Measure PSNR and SSIM of a network, compared with bicubic.")
@click.option("--weights", type=PATH, required=True, help="model.pth or best.pth of a run, or Real-ESRGAN weights.")
@click.option("--shards", type=ADDRESS, help="Shard folder of one scale; its --split is evaluated.")
@click.option("--cache", type=PATH, help="Shard cache, as for training.")
@click.option("--cache-bytes", type=BYTE_SIZE, help="Size limit of the cache.  [default: most of the free disk space]")
@click.option("--split", type=Choice(("train", "val")), default="val", show_default=True, help="Split of --shards.")
@click.option("--hr", type=PATH, help="Folder of HR photos, instead of --shards; LR is computed with MATLAB's bicubic.")
@click.option("--scale", type=click.IntRange(2, 8), help="Scale for --hr.  [default: the network's]")
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda or cuda:1; auto uses a GPU if there is one."
)
@click.option("--tile", type=Tile(), default="auto", show_default=True, help="Tile edge in px, as for upscale.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures of every image as JSON.")
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
    """Measure PSNR and SSIM of a network and of bicubic upscaling, in RGB and in Y (BT.601), excluding a border of
    `scale` px.

    \b
    Examples:
      python -m trainer evaluate --weights runs/lite-4x/best.pth --shards shards/scale_4x
      python -m trainer evaluate --weights runs/lite-4x/best.pth --hr photos --scale 4
    """
    if shards is None and hr is None:
        raise UsageError("no images to evaluate; pass --shards shards/scale_4x or --hr FOLDER_OF_PHOTOS")
    if shards is not None and hr is not None:
        raise UsageError("pass either --shards or --hr, not both")
    with loading():
        from srshards.process.allocator import keep_freed_memory
        from srshards.shards.opening import open_shards
        from trainer.evaluation.evaluate import evaluate_pairs
        from trainer.evaluation.metrics import mean_quality
        from trainer.models.weights import load_network
        from trainer.training.device import choose_device, limit_threads

    limit_threads()
    torch_device = choose_device(device)
    if torch_device.type == "cpu":
        keep_freed_memory()
    network = load_network(weights).to(torch_device)
    pairs, scale, data = (
        _pairs_of_shards(network, weights, open_shards(shards, cache=cache, cache_bytes=cache_bytes), split, scale)
        if shards
        else _pairs_of_photos(network, weights, hr, scale)
    )
    results = list(Bar(evaluate_pairs(network, pairs, tile), desc="images", unit=""))
    if not results:
        raise UsageError(f"no images in {data}")
    means = {name: mean_quality([getattr(one, name) for one in results]) for name in ("bicubic", "network")}
    if as_json:
        images = [
            {"image": one.name, "bicubic": _plain(one.bicubic), "network": _plain(one.network)} for one in results
        ]
        mean = {name: _plain(quality) for name, quality in means.items()}
        report = {"weights": str(weights), "data": data, "scale": scale, "mean": mean, "images": images}
        click.echo(json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False))
        return
    images_at = f"{plural(len(results), 'image')} at {scale}x"
    say(f"{weights} ({network.spec.name}, {network.spec.scale}x) on {data}, {images_at}")
    click.echo(quality_table(means))


def _pairs_of_shards(
    network: Network, weights: Path, shards: Shards, split: str, scale: int | None
) -> tuple[Iterator[Pair], int, str]:
    from trainer.evaluation.pairs import shard_pairs, takes_upsampled

    folder = shards.path
    if scale not in (None, shards.scale):
        raise UsageError(f"--scale {scale}: the shards in {folder} are {shards.scale}x; omit --scale")
    upsampled = takes_upsampled(network.spec.scale, shards.scale, str(weights), str(folder))
    if upsampled and not shards.manifest.has_up:
        raise UsageError(
            f"{weights} takes upsampled images, but {folder} has none; generate shards without --no-up, or evaluate "
            f"photos: --hr PHOTOS --scale {shards.scale}"
        )
    return shard_pairs(shards, split, upsampled), shards.scale, f"{folder} ({split})"


def _pairs_of_photos(
    network: Network, weights: Path, folder: Path | None, scale: int | None
) -> tuple[Iterator[Pair], int, str]:
    from trainer.evaluation.pairs import photo_pairs

    assert folder is not None
    network_scale, upsampled = network.spec.scale, network.spec.scale == 1
    if scale is None and upsampled:
        raise UsageError(f"{weights} takes upsampled images of any scale; pass the scale, e.g. --scale 4")
    if not (upsampled or scale in (None, network_scale)):
        raise UsageError(f"{weights} upscales {network_scale}x, not {scale}x; omit --scale, or pass other --weights")
    scale = scale or network_scale
    return photo_pairs(folder, scale, upsampled), scale, str(folder)


def _plain(quality: Quality) -> dict[str, float | None]:
    """Return the metrics as a dict; JSON has no infinity, so the PSNR of identical images becomes None."""
    return {name: value if isfinite(value) else None for name, value in asdict(quality).items()}
