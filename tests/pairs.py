"""Folders of synthetic HR/LR pairs, and plain readers of packed shards."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from helpers import run_cli
from numpy.typing import NDArray
from PIL import Image

from tests.drill import folders

Image8 = NDArray[np.uint8]


def save(path: Path, pixels: Image8) -> None:
    """Save an image with a fixed modification time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(10**18, 10**18))


def shrunk(hr: Image8, scale: int) -> Image8:
    """Return LR: the mean of each block of scale x scale px; further px at the right and bottom are dropped."""
    height, width = (edge // scale for edge in hr.shape[:2])
    blocks = hr[: height * scale, : width * scale].reshape(height, scale, width, scale, 3)
    return np.floor(blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)


def hr_image(height: int, width: int, seed: int) -> Image8:
    """Return an image with detail that LR still shows, unlike pure noise."""
    coarse = folders.make_photo(height // 4 + 1, width // 4 + 1, seed, texture=60)
    fine = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(fine)


def make_pairs(folder: Path, count: int, scales: tuple[int, ...] = (2, 3), size: tuple[int, int] = (99, 130)) -> Path:
    """Write `HR/` and `X2/`, `X3/` with `count` pairs in two classes, identical on every call."""
    for number in range(count):
        name, hr = f"class{number % 2}/img{number}.png", hr_image(*size, number)
        save(folder / "HR" / name, hr)
        for scale in scales:
            save(folder / f"X{scale}" / name, shrunk(hr, scale))
    return folder


def pack(folder: Path, output: Path, *args: object, scales: tuple[int, ...] = (2,), expect: int = 0) -> Any:
    """Run `pack` on the folders of `make_pairs`, with tiles of 48 px and in this process unless `args` differ."""
    lrs = [word for scale in scales for word in ("--lr", folder / f"X{scale}")]
    defaults = ("-o", output, "--auto", "--size", 48, "--workers", 0)
    result = run_cli("pack", "--hr", folder / "HR", *lrs, *defaults, *args)
    assert result.returncode == expect, result.stderr + result.stdout
    return result


def samples(folder: Path) -> dict[str, dict[str, Any]]:
    """Read all samples of a scale's folder with tar and NumPy: images and `json` by name, by key."""
    found: dict[str, dict[str, Any]] = {}
    for tar in sorted(folder.glob("*.tar")):
        with tarfile.open(tar) as archive:
            for member in archive:
                key, _, name = member.name.partition(".")
                file = archive.extractfile(member)
                assert file is not None
                data = file.read()
                content = json.loads(data) if name == "json" else np.load(io.BytesIO(data))
                found.setdefault(key, {})[name.removesuffix(".npy")] = content
    return found


def manifest(output: Path, scale: int = 2) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / f"scale_{scale}x" / "manifest.json").read_text())
    return content
