"""Changes of size on the way, and to LR size."""

import cv2
import numpy as np

from shardgen.degradation.rng import Dice
from shardgen.degradation.settings import Categorical, Setting, Uniform
from shardgen.degradation.step import Image, Parameters, Settings, Size, Sizes, Step

MIN_EDGE = 4  # px: filters need something to work on
MAX_OF_HR, MAX_EDGE = 4, 8192  # times HR's edge, and px beyond it: a recipe that enlarges must not eat all memory

# Linear and cubic (a = -0.75) are those of PyTorch's `interpolate`, which Real-ESRGAN uses: nothing is antialiased.
_INTERPOLATIONS = {
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST_EXACT,
    "lanczos": cv2.INTER_LANCZOS4,
}
_INTERPOLATION = Categorical(
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
    """Each new pixel is the mean of all pixels that it touches: PyTorch's `area`, and so Real-ESRGAN's, in both ways.

    OpenCV's weighs them by how much of them it covers, and its enlargement is a distorted linear one.
    """
    means = _mean_rows(image, size[0])
    return np.asarray(cv2.transpose(_mean_rows(np.asarray(cv2.transpose(means), np.float32), size[1])), np.float32)


def _mean_rows(image: Image, height: int) -> Image:
    place = np.arange(height)
    first, stop = place * image.shape[0] // height, -(-(place + 1) * image.shape[0] // height)
    counts = stop - first
    total: Image = image.take(first, 0)
    for further in range(1, counts.max()):
        rows = np.flatnonzero(further < counts)
        total[rows] += image.take(first[rows] + further, 0)
    total /= counts[:, None, None].astype(np.float32)
    return total


_RESIZE: dict[str, Setting] = {
    "of": Categorical({"image": 1.0}, "what the factor refers to: the image as it is, or LR size", ("image", "lr")),
    "direction": Categorical({"up": 0.2, "down": 0.7, "keep": 0.1}, "which part of the range", ("up", "down", "keep")),
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
    limits = (min(MAX_OF_HR * edge, max(MAX_EDGE, edge)) for edge in sizes.hr)
    size = [min(max(MIN_EDGE, int(edge * factor)), limit) for edge, limit in zip(base, limits, strict=True)]
    return {"size": size, "interpolation": dice.choice(values["interpolation"])}


_TO_LR: dict[str, Setting] = {"interpolation": _INTERPOLATION}


def _draw_to_lr(values: Settings, dice: Dice, sizes: Sizes) -> Parameters:
    return {"size": list(sizes.lr), "interpolation": dice.choice(values["interpolation"])}


def _apply(image: Image, parameters: Parameters) -> Image:
    height, width = parameters["size"]
    return resize(image, (height, width), parameters["interpolation"])


RESIZE = Step("another size, up to four times HR's", _RESIZE, _draw_resize, _apply)
TO_LR = Step("to LR size", _TO_LR, _draw_to_lr, _apply)
