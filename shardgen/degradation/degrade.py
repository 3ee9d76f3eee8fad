"""HR becomes LR, by a plain method or as a recipe was drawn, and LR is enlarged again."""

import functools
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from shardgen.degradation.recipe import Drawn, Recipe, degraded
from shardgen.degradation.rng import Dice
from srshards.imaging.bicubic import bicubic_down, bicubic_up
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import resize

# An area average only makes sense for shrinking; OpenCV's "area" enlargement is a distorted linear one.
_ENLARGING = {"area": "cubic"}

# Those that decide the pixels of a recipe's steps.
_LIBRARIES = {"numpy": "numpy", "opencv": "opencv-python-headless", "simplejpeg": "simplejpeg", "pillow": "pillow"}


def shrink(hr: Pixels, scale: int, method: str) -> Pixels:
    """LR: `hr` at 1/scale of its height and width, which must be multiples of `scale`."""
    if method == "matlab":
        return bicubic_down(hr, scale)
    return resize(hr, hr.shape[0] // scale, hr.shape[1] // scale, method)


def enlarge(lr: Pixels, scale: int, method: str) -> Pixels:
    """`up`: `lr` at scale times its height and width, with the same method (`area`: cubic)."""
    if method == "matlab":
        return bicubic_up(lr, scale)
    return resize(lr, lr.shape[0] * scale, lr.shape[1] * scale, _ENLARGING.get(method, method))


def draw_variants(
    recipe: Recipe, count: int, seed: int, source: str, place: tuple[int, int], hr_size: int, scale: int
) -> list[Drawn]:
    """What is to be done for each LR of an HR image: a function of seed, photo, place and variant, of nothing else.

    `place` is the left and top edge of what HR shows of the photo, which tells the tiles of a photo apart.
    """
    hr, lr = (hr_size, hr_size), (hr_size // scale, hr_size // scale)
    return [recipe.draw(Dice(seed, source, *place, variant), hr, lr) for variant in range(count)]


def make_lrs(hr: Pixels, scale: int, method: str, drawn: Iterable[Iterable[Mapping[str, Any]]] | None) -> list[Pixels]:
    """The LR images of `hr`: one for each that was drawn, or one by the plain method."""
    if drawn is None:
        return [shrink(hr, scale, method)]
    return [degraded(hr, steps) for steps in drawn]


@functools.cache
def libraries() -> dict[str, str]:
    """The versions of the libraries on which the pixels depend."""
    return {name: version(distribution) for name, distribution in _LIBRARIES.items()}
