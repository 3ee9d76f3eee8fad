"""Changes of size on the way, and to LR size."""

import cv2
import numpy as np

from shardgen.degradation.dice import Dice
from shardgen.degradation.settings import Choice, Setting, Uniform
from shardgen.degradation.step import Image, Parameters, Settings, Size, Sizes, Step

MIN_EDGE = 4  # px: filters need something to work on
MAX_OF_HR = 4  # times HR's edge: recipes that enlarge again and again must not eat all memory

# Linear and cubic (a = -0.75) are those of PyTorch's `interpolate`, which Real-ESRGAN uses: nothing is antialiased.
_INTERPOLATIONS = {
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST_EXACT,
    "lanczos": cv2.INTER_LANCZOS4,
}
_INTERPOLATION = Choice(
    dict.fromkeys(("area", "linear", "cubic"), 1.0), "how pixels are made of pixels", tuple(_INTERPOLATIONS)
)


def resize(image: Image, size: Size, interpolation: str) -> Image:
    """`image` at `size` (height, width)."""
    if image.shape[:2] == size:
        return image
    if interpolation == "area":
        return _resize_area(image, size)
    return np.asarray(cv2.resize(image, size[::-1], interpolation=_INTERPOLATIONS[interpolation]), dtype=np.float32)


def _resize_area(image: Image, size: Size) -> Image:
    """Each new pixel is the mean of the area that it covers, or, enlarged, of the one or two pixels that it touches.

    The second is what PyTorch's `area` does, and so Real-ESRGAN: blocky. OpenCV's would be a distorted linear one.
    Shrinking, PyTorch counts a pixel that is touched as a whole one too: the same at 1/n, a little softer between.
    """
    shrunk = (min(size[0], image.shape[0]), min(size[1], image.shape[1]))
    if shrunk != image.shape[:2]:
        image = np.asarray(cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32)
    for axis in (0, 1):
        old, new = image.shape[axis], size[axis]
        if new > old:
            place = np.arange(new)
            first, last = place * old // new, ((place + 1) * old - 1) // new
            image = (image.take(first, axis) + image.take(last, axis)) / 2
    return image


_RESIZE: dict[str, Setting] = {
    "of": Choice({"image": 1.0}, "what the factor refers to: the image as it is, or LR size", ("image", "lr")),
    "direction": Choice({"up": 0.2, "down": 0.7, "keep": 0.1}, "which part of the range", ("up", "down", "keep")),
    "range": Uniform((0.15, 1.5), "factors: down draws from those below 1, up from those above, keep is 1", 0.02, 8),
    "interpolation": _INTERPOLATION,
}


def _draw_resize(values: Settings, dice: Dice, sizes: Sizes) -> Parameters:
    """A direction of which the range has nothing keeps the size."""
    base = sizes.lr if dice.choice(values["of"]) == "lr" else sizes.now
    direction = dice.choice(values["direction"])
    low, high = values["range"]
    factor = 1.0
    if direction == "down":
        factor = dice.uniform(min(low, 1), min(high, 1))
    elif direction == "up":
        factor = dice.uniform(max(low, 1), max(high, 1))
    limits = (MAX_OF_HR * edge for edge in sizes.hr)
    size = [min(max(MIN_EDGE, round(edge * factor)), limit) for edge, limit in zip(base, limits, strict=True)]
    return {"size": size, "interpolation": dice.choice(values["interpolation"])}


_TO_LR: dict[str, Setting] = {"interpolation": _INTERPOLATION}


def _draw_to_lr(values: Settings, dice: Dice, sizes: Sizes) -> Parameters:
    return {"size": list(sizes.lr), "interpolation": dice.choice(values["interpolation"])}


def _apply(image: Image, parameters: Parameters) -> Image:
    height, width = parameters["size"]
    return resize(image, (height, width), parameters["interpolation"])


RESIZE = Step("another size, up to four times HR's", _RESIZE, _draw_resize, _apply)
TO_LR = Step("to LR size", _TO_LR, _draw_to_lr, _apply)
