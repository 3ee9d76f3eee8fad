"""Resizing steps: to intermediate sizes and to LR size."""

import cv2
import numpy as np

from shardgen.degradation.rng import KeyedRng
from shardgen.degradation.settings import Categorical, Setting, Uniform
from shardgen.degradation.step import Image, Parameters, Settings, Size, Sizes, Step

MIN_EDGE_PX = 4  # filters need a few pixels
# An image may grow to this multiple of HR, but not beyond 8192 px or HR's own edge, whichever is larger: limits memory.
MAX_HR_FACTOR, MAX_EDGE_PX = 4, 8192

# Linear and cubic (a = -0.75) match PyTorch's `interpolate`, which Real-ESRGAN uses: without antialiasing.
_INTERPOLATIONS = {
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST_EXACT,
    "lanczos": cv2.INTER_LANCZOS4,
}
_INTERPOLATION = Categorical(
    dict.fromkeys(("area", "linear", "cubic"), 1.0), "interpolation method", tuple(_INTERPOLATIONS)
)


def resize(image: Image, size: Size, interpolation: str) -> Image:
    """Resize `image` to `size` (height, width)."""
    if image.shape[:2] == size:
        return image
    if interpolation == "area":
        return _resize_area(image, size)
    return np.asarray(cv2.resize(image, size[::-1], interpolation=_INTERPOLATIONS[interpolation]), dtype=np.float32)


def _resize_area(image: Image, size: Size) -> Image:
    """Resize so that each new pixel is the mean of all pixels that it overlaps, as PyTorch's `area` in Real-ESRGAN.

    OpenCV's `area` weights pixels by their overlap, and upsamples by a distorted linear interpolation.
    """
    means = _mean_rows(image, size[0])
    return np.asarray(cv2.transpose(_mean_rows(np.asarray(cv2.transpose(means), np.float32), size[1])), np.float32)


def _mean_rows(image: Image, height: int) -> Image:
    row = np.arange(height)
    first, stop = row * image.shape[0] // height, -(-(row + 1) * image.shape[0] // height)
    counts = stop - first
    total: Image = image.take(first, 0)
    for offset in range(1, counts.max()):
        rows = np.flatnonzero(offset < counts)
        total[rows] += image.take(first[rows] + offset, 0)
    total /= counts[:, None, None].astype(np.float32)
    return total


_UNIFORM = Categorical(
    {"factor": 1.0}, "what is drawn uniformly: the factor, or its reciprocal, the divisor", ("factor", "divisor")
)
_RESIZE: dict[str, Setting] = {
    "of": Categorical({"image": 1.0}, "reference of the factor: the image's current size, or LR size", ("image", "lr")),
    "direction": Categorical(
        {"up": 0.2, "down": 0.7, "keep": 0.1}, "part of the range to draw from", ("up", "down", "keep")
    ),
    "range": Uniform((0.15, 1.5), "factors: down draws below 1, up draws above 1, keep is 1", 0.02, 8),
    "interpolation": _INTERPOLATION,
    "uniform": _UNIFORM,
}


def _draw_resize(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
    """Draw size and interpolation. A direction without factors in the range keeps the size."""
    base = sizes.lr if rng.choice(values["of"]) == "lr" else sizes.now
    direction = rng.choice(values["direction"])
    low, high = values["range"]
    if direction == "down":
        low, high = min(low, 1), min(high, 1)
    elif direction == "up":
        low, high = max(low, 1), max(high, 1)
    by_divisor = _UNIFORM.draw_added(values["uniform"], rng) == "divisor"
    factor = 1.0
    if direction != "keep":
        factor = 1 / rng.uniform(1 / high, 1 / low) if by_divisor else rng.uniform(low, high)
    limits = (min(MAX_HR_FACTOR * edge, max(MAX_EDGE_PX, edge)) for edge in sizes.hr)
    size = [min(max(MIN_EDGE_PX, int(edge * factor)), limit) for edge, limit in zip(base, limits, strict=True)]
    return {"size": size, "interpolation": rng.choice(values["interpolation"])}


_TO_LR: dict[str, Setting] = {"interpolation": _INTERPOLATION}


def _draw_to_lr(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
    return {"size": list(sizes.lr), "interpolation": rng.choice(values["interpolation"])}


def _apply(image: Image, parameters: Parameters) -> Image:
    height, width = parameters["size"]
    return resize(image, (height, width), parameters["interpolation"])


RESIZE = Step("resize by a factor, at most to four times HR", _RESIZE, _draw_resize, _apply, added=("uniform",))
TO_LR = Step("resize to LR size", _TO_LR, _draw_to_lr, _apply)
