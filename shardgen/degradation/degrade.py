"""Derive LR from HR, by a resampling method or a drawn recipe."""

import functools
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from shardgen.degradation.recipe import DrawnSteps, Recipe, degraded
from shardgen.degradation.rng import KeyedRng
from srshards.imaging.bicubic import bicubic_down
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import resize

# The libraries that determine the pixels of a recipe's steps.
_LIBRARIES = {"numpy": "numpy", "opencv": "opencv-python-headless", "simplejpeg": "simplejpeg", "pillow": "pillow"}


def downsample(hr: Pixels, scale: int, method: str) -> Pixels:
    """Return LR: `hr` at 1/scale of its height and width, which must be multiples of `scale`."""
    if method == "matlab":
        return bicubic_down(hr, scale)
    return resize(hr, hr.shape[0] // scale, hr.shape[1] // scale, method)


def draw_variants(
    recipe: Recipe, count: int, seed: int, source: str, origin: tuple[int, int], hr_size: int, scale: int
) -> list[DrawnSteps]:
    """Draw the steps of `count` LR images of an HR image, determined by seed, photo, origin and variant alone.

    `origin` is the left and top edge of HR in the photo (px), which distinguishes the tiles of a photo.
    """
    hr, lr = (hr_size, hr_size), (hr_size // scale, hr_size // scale)
    return [recipe.draw(KeyedRng(seed, source, *origin, variant), hr, lr) for variant in range(count)]


def make_lrs(hr: Pixels, scale: int, method: str, drawn: Iterable[Iterable[Mapping[str, Any]]] | None) -> list[Pixels]:
    """Return the LR images of `hr`: one for each entry of `drawn`, or one by `method` if that is None."""
    if drawn is None:
        return [downsample(hr, scale, method)]
    return [degraded(hr, steps) for steps in drawn]


@functools.cache
def libraries() -> dict[str, str]:
    """Return the versions of the libraries that the pixels depend on."""
    return {name: version(distribution) for name, distribution in _LIBRARIES.items()}
