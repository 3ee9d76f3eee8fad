"""What a tile's margin changes in the output of a network: how far it sees, in practice.

The output for the centre of a photo, with a margin around it, is compared with that for the complete photo. Printed is
the largest difference in grey levels (of 255) for each margin. Margins that are not a multiple of the network's windows
are omitted: tiles are aligned to those. Networks of the catalogue are untrained, at 4x; their differences are divided
by the contrast of their output over that of the photo, which training makes equal. `--weights FILE` measures others.

    python -m benchmarks.bench_margins --photos DIR
"""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.common import PhotoSet, say
from benchmarks.options import benchmark, output_option, photos_option
from benchmarks.report import print_table, write_result
from srshards.terminal.text import Choice
from trainer.catalogue import NETWORKS
from trainer.models import Network, network_spec
from trainer.models.weights import load_network

_SCALE = 4
_SIZE_PX, _CENTRE_PX = 160, 32  # with a margin of 64 px, the tile is the complete photo
_MARGINS_PX = (8, 16, 24, 32, 48)


def photo_crop(photos: PhotoSet) -> Tensor:
    """Return 1 x 3 x 160 x 160 from the middle of the first photo, reduced by half, in [0, 1]."""
    with Image.open(photos.root / photos.paths[0]) as photo:
        left, top = (side // 2 - _SIZE_PX for side in photo.size)
        box = (left, top, left + 2 * _SIZE_PX, top + 2 * _SIZE_PX)
        pixels = np.asarray(photo.convert("RGB").resize((_SIZE_PX, _SIZE_PX), Image.Resampling.BICUBIC, box))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255


@torch.inference_mode()
def differences(network: Network, photo: Tensor) -> dict[int, float]:
    """Return the largest difference in grey levels by margin in px."""
    start, end, scale = (_SIZE_PX - _CENTRE_PX) // 2, (_SIZE_PX + _CENTRE_PX) // 2, network.scale
    whole = network(photo)[:, :, start * scale : end * scale, start * scale : end * scale]
    contrast = float(whole.std() / photo.std())
    found = {}
    for margin in _MARGINS_PX:
        if margin % network.spec.multiple_px == 0:
            tile = photo[:, :, start - margin : end + margin, start - margin : end + margin]
            inner = slice(margin * scale, (margin + _CENTRE_PX) * scale)
            found[margin] = 255 * float((network(tile)[:, :, inner, inner] - whole).abs().max()) / contrast
    return found


def networks(models: tuple[str, ...], weights: tuple[Path, ...]) -> Iterator[tuple[str, Network]]:
    for path in weights:
        yield str(path), load_network(path)
    for name in models or (() if weights else NETWORKS):
        yield name, network_spec(name, _SCALE).build().eval()


@benchmark
@photos_option
@click.option("--model", "models", type=Choice(NETWORKS), multiple=True, help="Network. May be repeated.")
@click.option("--weights", type=click.Path(path_type=Path), multiple=True, help="Trained network. May be repeated.")
@output_option("margins.json")
def main(photos: Path | None, models: tuple[str, ...], weights: tuple[Path, ...], output: Path) -> None:
    """Measure what margins change.

    \b
    Example:
      python -m benchmarks.bench_margins --photos photos --model span --weights runs/span-4x/best.pth
    """
    photo = photo_crop(PhotoSet.of(photos))
    found: dict[str, dict[int, float]] = {}
    rows = []
    for name, network in networks(models, weights):
        say(name)
        found[name] = differences(network, photo)
        texts = (f"{found[name][margin]:.2g}" if margin in found[name] else "" for margin in _MARGINS_PX)
        rows.append([name, str(network.spec.margin_px), *texts])
    print_table("largest difference, grey levels", ("network", "its margin", *(f"{m} px" for m in _MARGINS_PX)), rows)
    given = (*(f"--model {name}" for name in models), *(f"--weights {path}" for path in weights))
    command = " ".join(("python -m benchmarks.bench_margins --photos DIR", *given))
    write_result(output, command, output.parent, {"size_px": _SIZE_PX, "centre_px": _CENTRE_PX, "differences": found})


if __name__ == "__main__":
    main()
