"""An independent computation of HR, LR and up, written from `formats.md` and `degradation-steps.md` in docs/reference.

Only the kernels that those pages define as OpenCV's are OpenCV's here as well; no code of this project is used.
"""

import functools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import cv2
import icc_profiles
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
# EXIF: the sides of the upright photo at which the first stored row and the first stored column are.
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
    """Options of `generate`."""

    fit: str
    method: str
    size: int
    step: int = 0  # of tiles


class Sample(NamedTuple):
    """The expected content of a sample."""

    box: Box
    images: dict[str, np.ndarray]


def samples(data: bytes, ask: Ask, scale: int) -> Iterator[Sample]:
    """Yield the expected samples of a photo at one scale, in order."""
    edge = ask.size - ask.size % scale
    for box in boxes(data, ask):
        hr = cropped(rendered(source_pixels(data, box, ask), ask.size), edge)
        lr = downsampled(hr, scale, ask.method)
        yield Sample(cropped_box(box, ask.size, edge), {"hr": hr, "lr": lr, "up": upsampled(lr, scale, ask.method)})


# from the file to upright RGB


def eight_bits(picture: Picture) -> np.ndarray:
    """Return H x W x 3 uint8, blended over black and rounded once, or, with a profile, first converted to sRGB."""
    if applies(picture.profile):
        levels = (2 * 255 * picture.colour.astype(np.int64) + picture.maximum) // (2 * picture.maximum)
        converted = icc_profiles.to_srgb(levels, picture.profile)
        picture = picture._replace(colour=converted, maximum=255, profile=b"")
    alpha = np.asarray(picture.alpha)[..., None] if np.ndim(picture.alpha) else picture.alpha
    denominator = picture.maximum * picture.alpha_maximum
    levels = (2 * 255 * picture.colour.astype(np.int64) * alpha + denominator) // (2 * denominator)
    return np.broadcast_to(levels, (*levels.shape[:2], 3)).astype(np.uint8)


def applies(profile: bytes) -> bool:
    """Return whether there is a profile other than one of sRGB."""
    return bool(profile) and not icc_profiles.is_srgb(profile)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation."""
    row, column = SIDES[orientation]
    if row in ("left", "right"):
        pixels = pixels.swapaxes(0, 1)
    if "right" in (row, column):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if "bottom" in (row, column) else pixels


@functools.lru_cache(maxsize=1000)
def upright(data: bytes) -> np.ndarray:
    """Return the photo as H x W x 3 uint8."""
    picture = plain_files.decode(data)
    return turned(eight_bits(picture), picture.orientation)


# crop boxes


def boxes(data: bytes, ask: Ask) -> list[Box]:
    """Return the box of HR, or the boxes of tiles in row-major order."""
    height, width = upright(data).shape[:2]
    if ask.fit == "stretch":
        return [(0, 0, width, height)]
    if ask.fit == "cover":
        side = min(width, height)
        return [((width - side) // 2, (height - side) // 2, side, side)]
    lefts, tops = tile_origins(width, ask), tile_origins(height, ask)
    return [(left, top, ask.size, ask.size) for top in tops for left in lefts]


def tile_origins(length: int, ask: Ask) -> list[int]:
    """Return the coordinates at which tiles begin: every step, and one that ends at the edge."""
    if length < ask.size:
        return []
    last = length - ask.size
    return [*range(0, last, ask.step), last]


def cropped_box(box: Box, size: int, edge: int) -> Box:
    """Return the part of a box that remains when HR of `size` is cropped to `edge`."""
    left, top, width, height = box
    return left, top, round(width * edge / size), round(height * edge / size)


def source_pixels(data: bytes, box: Box, ask: Ask) -> np.ndarray:
    """Return the pixels of a box, reduced where a JPEG is decoded at a fraction of its size."""
    reduction = 1
    if data[:2] == b"\xff\xd8" and ask.fit != "tile":
        reduction = next((by for by in (8, 4, 2) if reducible(plain_files.jpeg_header(data), box, ask.size, by)), 1)
    pixels = upright(data) if reduction == 1 else reduced(data, reduction)
    return of_box(pixels, (box[0] // reduction, box[1] // reduction, box[2] // reduction, box[3] // reduction))


def of_box(pixels: np.ndarray, box: Box) -> np.ndarray:
    left, top, width, height = box
    return pixels[top : top + height, left : left + width]


@functools.lru_cache(maxsize=1000)
def reduced(data: bytes, reduction: int) -> np.ndarray:
    """Return a JPEG decoded at 1/reduction, upright, as H x W x 3 uint8."""
    pixels, profile = plain_files.jpeg_pixels(data, reduction), plain_files.icc_profile(data)
    if applies(profile):
        pixels = icc_profiles.to_srgb(pixels, profile)
    return turned(pixels, plain_files.jpeg_header(data).orientation)


def reducible(jpeg: Jpeg, box: Box, size: int, reduction: int) -> bool:
    """Return whether enough pixels remain, the box is on their grid, and block padding cannot be visible."""
    grey, is_420 = len(jpeg.sampling) == 1, jpeg.sampling == ((2, 2), (1, 1), (1, 1))
    if not grey and not is_420 and jpeg.sampling != ((1, 1), (1, 1), (1, 1)):
        return False
    enough = min(jpeg.width, jpeg.height) >= size * reduction
    on_grid = all(value % reduction == 0 for value in box)
    unit = 16 if is_420 and reduction > 2 else 8
    return enough and on_grid and jpeg.width % unit == 0 and jpeg.height % unit == 0


# HR, LR, up


def rendered(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize to a square of `size` px."""
    height, width = pixels.shape[:2]
    kernel = cv2.INTER_AREA if 3 * max(width, height) > 4 * size else cv2.INTER_CUBIC
    return resized(pixels, size, kernel)


def resized(pixels: np.ndarray, size: int, kernel: int) -> np.ndarray:
    """Resize by OpenCV, unless the image has the size already."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return cv2.resize(np.ascontiguousarray(pixels), (size, size), interpolation=kernel)


def cropped(hr: np.ndarray, edge: int) -> np.ndarray:
    """Crop at the right and at the bottom."""
    return hr[:edge, :edge]


def downsampled(hr: np.ndarray, scale: int, method: str) -> np.ndarray:
    if method == "matlab":
        return imresize(hr, Fraction(1, scale))
    return resized(hr, len(hr) // scale, METHODS[method])


def upsampled(lr: np.ndarray, scale: int, method: str) -> np.ndarray:
    """Compute up from LR; `area` is for downsampling only."""
    if method == "matlab":
        return imresize(lr, Fraction(scale))
    return resized(lr, len(lr) * scale, METHODS["cubic" if method == "area" else method])


def imresize(image: np.ndarray, factor: Fraction) -> np.ndarray:
    """MATLAB's bicubic imresize of a square image in integers, rounded half up and clipped."""
    weights, denominator = imresize_weights(len(image), factor)
    total = np.einsum("ai,ijc,bj->abc", weights, image.astype(np.int64), weights, optimize=True)
    return np.clip((2 * total + denominator**2) // (2 * denominator**2), 0, 255).astype(np.uint8)


@functools.cache
def imresize_weights(length: int, factor: Fraction) -> tuple[np.ndarray, int]:
    """MATLAB's `contributions`: output x input integer weights, and the denominator to which each row sums."""
    stretched = max(1, 1 / factor)  # antialiasing
    weights = np.full((int(length * factor), length), Fraction(0), object)
    for out in range(len(weights)):
        centre = (out + Fraction(1, 2)) / factor - Fraction(1, 2)
        first = (centre - 2 * stretched) // 1
        taps = range(first, first + int(4 * stretched) + 3)
        values = [keys_kernel((centre - tap) / stretched) for tap in taps]
        for tap, value in zip(taps, values, strict=True):
            mirrored = tap % (2 * length)
            weights[out, min(mirrored, 2 * length - 1 - mirrored)] += value / sum(values)
    denominator = int(np.lcm.reduce([weight.denominator for weight in weights.flat]))
    return (weights * denominator).astype(np.int64), denominator


def keys_kernel(x: Fraction) -> Fraction:
    """Keys' cubic convolution kernel, a = -0.5."""
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x < 2 else Fraction(0)


def psnr(up: np.ndarray, hr: np.ndarray) -> float | None:
    """Return the PSNR in dB, rounded to four decimals; None for equal images."""
    error = np.mean((up.astype(float) - hr) ** 2)
    return round(float(10 * np.log10(255**2 / error)), 4) if error else None


# OpenCV's kernels by their formulas


def by_formula(image: np.ndarray, size: int, method: str) -> np.ndarray:
    """Resize a square image in float64 with repeated edges, which OpenCV approximates in integers."""
    matrix = np.zeros((size, len(image)))
    ratio = len(image) / size
    for out in range(size):
        for index, weight in FORMULAS[method](out, ratio):
            matrix[out, min(max(index, 0), len(image) - 1)] += weight
    matrix /= matrix.sum(axis=1, keepdims=True)
    return np.einsum("ai,ijc,bj->abc", matrix, image.astype(float), matrix, optimize=True)


def _nearest(out: int, ratio: float) -> list[tuple[int, float]]:
    return [(int((out + 0.5) * ratio), 1.0)]


def _area(out: int, ratio: float) -> list[tuple[int, float]]:
    low, high = out * ratio, (out + 1) * ratio
    return [(index, max(0.0, min(high, index + 1) - max(low, index))) for index in range(int(low), int(high) + 1)]


def _convolution(reach: int, kernel: Callable[[float], float]) -> Callable[[int, float], list[tuple[int, float]]]:
    def taps(out: int, ratio: float) -> list[tuple[int, float]]:
        centre = (out + 0.5) * ratio - 0.5
        first = int(np.floor(centre)) - reach + 1
        return [(index, kernel(abs(centre - index))) for index in range(first, first + 2 * reach)]

    return taps


def _cubic(x: float, a: float = -0.75) -> float:
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4)


FORMULAS = {
    "nearest": _nearest,
    "linear": _convolution(1, lambda x: 1 - x),
    "cubic": _convolution(2, _cubic),
    "area": _area,
    "lanczos": _convolution(4, lambda x: float(np.sinc(x) * np.sinc(x / 4))),
}
