"""HR, LR and up of a photo, made a second time, plainly, from docs/formats.md and docs/degradations.md alone.

What those pages leave to OpenCV's kernels, OpenCV does here as well. Nothing of this project is used.
"""

import functools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np
import plain_files
from plain_files import Jpeg, Picture

METHODS = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
# EXIF: on which sides of the upright photo the first stored row and the first stored column lie.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
Box = tuple[int, int, int, int]  # left, top, width, height


class Ask(NamedTuple):
    """What `generate` was asked for."""

    fit: str
    method: str
    size: int
    step: int = 0  # from tile to tile


class Sample(NamedTuple):
    """What has to be in the shard."""

    box: Box
    images: dict[str, np.ndarray]


def samples(data: bytes, ask: Ask, scale: int) -> Iterator[Sample]:
    """Those of a photo at one scale, in order."""
    edge = ask.size - ask.size % scale
    for box in boxes(data, ask):
        hr = cropped(rendered(part(data, box, ask), ask.size), edge)
        lr = shrunk(hr, scale, ask.method)
        yield Sample(shown(box, ask.size, edge), {"hr": hr, "lr": lr, "up": enlarged(lr, scale, ask.method)})


# from the file to upright RGB


def eight_bits(picture: Picture) -> np.ndarray:
    """H x W x 3 uint8: over black, rounded once."""
    alpha = np.asarray(picture.alpha)[..., None] if np.ndim(picture.alpha) else picture.alpha
    whole = picture.maximum * picture.alpha_maximum
    levels = (2 * 255 * picture.colour.astype(np.int64) * alpha + whole) // (2 * whole)
    return np.broadcast_to(levels, (*levels.shape[:2], 3)).astype(np.uint8)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright, from stored as EXIF says."""
    row, column = SIDES[orientation]
    if row in ("left", "right"):
        pixels = pixels.swapaxes(0, 1)
    if "right" in (row, column):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if "bottom" in (row, column) else pixels


@functools.lru_cache(maxsize=1000)
def upright(data: bytes) -> np.ndarray:
    """H x W x 3 uint8 of the whole photo."""
    picture = plain_files.decode(data)
    return turned(eight_bits(picture), picture.orientation)


# which part of it


def boxes(data: bytes, ask: Ask) -> list[Box]:
    """What becomes HR: one box, or those of the tiles, in rows from the top."""
    height, width = upright(data).shape[:2]
    if ask.fit == "stretch":
        return [(0, 0, width, height)]
    if ask.fit == "cover":
        side = min(width, height)
        return [((width - side) // 2, (height - side) // 2, side, side)]
    lefts, tops = places(width, ask), places(height, ask)
    return [(left, top, ask.size, ask.size) for top in tops for left in lefts]


def places(length: int, ask: Ask) -> list[int]:
    """Where tiles begin on a side: every step, and a last one that ends with it."""
    if length < ask.size:
        return []
    last = length - ask.size
    return [*range(0, last, ask.step), last]


def shown(box: Box, size: int, edge: int) -> Box:
    """The part of a box that is left when HR of `size` is cropped to `edge`."""
    left, top, width, height = box
    return left, top, round(width * edge / size), round(height * edge / size)


def part(data: bytes, box: Box, ask: Ask) -> np.ndarray:
    """The pixels of a box, or fewer where the JPEG is decoded reduced."""
    reduction = 1
    if data[:2] == b"\xff\xd8" and ask.fit != "tile":
        reduction = next((by for by in (8, 4, 2) if reducible(plain_files.jpeg_header(data), box, ask.size, by)), 1)
    pixels = upright(data) if reduction == 1 else reduced(data, reduction)
    return of_box(pixels, (box[0] // reduction, box[1] // reduction, box[2] // reduction, box[3] // reduction))


def of_box(pixels: np.ndarray, box: Box) -> np.ndarray:
    """The part of an image."""
    left, top, width, height = box
    return pixels[top : top + height, left : left + width]


@functools.lru_cache(maxsize=1000)
def reduced(data: bytes, reduction: int) -> np.ndarray:
    """H x W x 3 uint8, upright, of the whole photo."""
    return turned(plain_files.jpeg_pixels(data, reduction), plain_files.jpeg_header(data).orientation)


def reducible(jpeg: Jpeg, box: Box, size: int, reduction: int) -> bool:
    """Whether enough pixels are left, the box lies on their grid, and no padding of the last blocks comes in."""
    grey, is_420 = len(jpeg.sampling) == 1, jpeg.sampling == ((2, 2), (1, 1), (1, 1))
    if not grey and not is_420 and jpeg.sampling != ((1, 1), (1, 1), (1, 1)):
        return False
    enough = min(jpeg.width, jpeg.height) >= size * reduction
    on_grid = all(value % reduction == 0 for value in box)
    unit = 16 if is_420 and reduction > 2 else 8
    return enough and on_grid and jpeg.width % unit == 0 and jpeg.height % unit == 0


# HR, LR, up


def rendered(pixels: np.ndarray, size: int) -> np.ndarray:
    """A square of `size` px."""
    height, width = pixels.shape[:2]
    kernel = cv2.INTER_AREA if 3 * max(width, height) > 4 * size else cv2.INTER_CUBIC
    return resized(pixels, size, kernel)


def resized(pixels: np.ndarray, size: int, kernel: int) -> np.ndarray:
    """By OpenCV; what has the size already is left as it is."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return cv2.resize(np.ascontiguousarray(pixels), (size, size), interpolation=kernel)


def cropped(hr: np.ndarray, edge: int) -> np.ndarray:
    """What is too much goes at the right and at the bottom."""
    return hr[:edge, :edge]


def shrunk(hr: np.ndarray, scale: int, method: str) -> np.ndarray:
    """LR of HR."""
    if method == "matlab":
        return imresize(hr, Fraction(1, scale))
    return resized(hr, len(hr) // scale, METHODS[method])


def enlarged(lr: np.ndarray, scale: int, method: str) -> np.ndarray:
    """Up of LR; averages of areas are for shrinking alone."""
    if method == "matlab":
        return imresize(lr, Fraction(scale))
    return resized(lr, len(lr) * scale, METHODS["cubic" if method == "area" else method])


def imresize(image: np.ndarray, factor: Fraction) -> np.ndarray:
    """MATLAB's, bicubic, of a square image; exact, then rounded half up and clipped."""
    weights, whole = imresize_weights(len(image), factor)
    total = np.einsum("ai,ijc,bj->abc", weights, image.astype(np.int64), weights, optimize=True)
    return np.clip((2 * total + whole**2) // (2 * whole**2), 0, 255).astype(np.uint8)


@functools.cache
def imresize_weights(length: int, factor: Fraction) -> tuple[np.ndarray, int]:
    """Its function `contributions`, counting from 0: output x input, integers that add up to the second result."""
    stretched = max(1, 1 / factor)  # antialiasing
    weights = np.full((int(length * factor), length), Fraction(0), object)
    for out in range(len(weights)):
        centre = (out + Fraction(1, 2)) / factor - Fraction(1, 2)
        first = (centre - 2 * stretched) // 1
        taps = range(first, first + int(4 * stretched) + 3)
        values = [keys((centre - tap) / stretched) for tap in taps]
        for tap, value in zip(taps, values, strict=True):
            mirrored = tap % (2 * length)
            weights[out, min(mirrored, 2 * length - 1 - mirrored)] += value / sum(values)
    whole = int(np.lcm.reduce([weight.denominator for weight in weights.flat]))
    return (weights * whole).astype(np.int64), whole


def keys(x: Fraction) -> Fraction:
    """The cubic convolution kernel, a = -0.5."""
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x < 2 else Fraction(0)


def psnr(up: np.ndarray, hr: np.ndarray) -> float | None:
    """In dB, to four decimals."""
    error = np.mean((up.astype(float) - hr) ** 2)
    return round(float(10 * np.log10(255**2 / error)), 4) if error else None


# OpenCV's kernels by their formulas


def by_formula(image: np.ndarray, size: int, method: str) -> np.ndarray:
    """A square image, float64, edges repeated: what OpenCV's whole numbers come near to."""
    matrix = np.zeros((size, len(image)))
    ratio = len(image) / size
    for out in range(size):
        for at, weight in FORMULAS[method](out, ratio):
            matrix[out, min(max(at, 0), len(image) - 1)] += weight
    matrix /= matrix.sum(axis=1, keepdims=True)
    return np.einsum("ai,ijc,bj->abc", matrix, image.astype(float), matrix, optimize=True)


def _nearest(out: int, ratio: float) -> list[tuple[int, float]]:
    return [(int((out + 0.5) * ratio), 1.0)]


def _area(out: int, ratio: float) -> list[tuple[int, float]]:
    low, high = out * ratio, (out + 1) * ratio
    return [(at, max(0.0, min(high, at + 1) - max(low, at))) for at in range(int(low), int(high) + 1)]


def _sampled(reach: int, kernel: Callable[[float], float]) -> Callable[[int, float], list[tuple[int, float]]]:
    def taps(out: int, ratio: float) -> list[tuple[int, float]]:
        centre = (out + 0.5) * ratio - 0.5
        first = int(np.floor(centre)) - reach + 1
        return [(at, kernel(abs(centre - at))) for at in range(first, first + 2 * reach)]

    return taps


def _cubic(x: float, a: float = -0.75) -> float:
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4)


FORMULAS = {
    "nearest": _nearest,
    "linear": _sampled(1, lambda x: 1 - x),
    "cubic": _sampled(2, _cubic),
    "area": _area,
    "lanczos": _sampled(4, lambda x: float(np.sinc(x) * np.sinc(x / 4))),
}
