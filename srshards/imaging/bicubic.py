"""Bicubic resizing by integer factors, equal to MATLAB's imresize: the "bicubic" of the literature.

Kernel: Keys (1981), a = -0.5, stretched by the factor when downsampling (antialiasing); pixel centres aligned; borders
mirrored with the edge pixel repeated; rounded once at the end, half up. This equals imresize of an image of doubles,
saved as 8 bits. (For uint8, imresize also rounds between the two directions, which changes some pixels by one level.)

For an integer factor all weights are multiples of one small unit fraction, so all sums here are integers, which floats
represent exactly: the result is the same on every machine, including ties.
"""

import math
import threading
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

from srshards.imaging.pixels import Pixels

_Float = type[np.float32] | type[np.float64]
_MAX_SCALE = 16  # keeps integers far below 2^53, which float64 represents exactly
_TILE_PX = 256  # edge length of a tile in the larger image, so that intermediate results fit in the CPU cache


class _Filter(NamedTuple):
    """A polyphase filter. Output i has phase i mod P and is the sum over k of
    taps[phase][k] / denominator x input[i // P * step + k].

    Inputs are counted from `before` px before the image, in the mirrored border. P is 1 when downsampling, else the
    factor.
    """

    before: int
    taps: tuple[tuple[int, ...], ...]  # by phase, all of the same length
    step: int
    denominator: int

    @property
    def num_phases(self) -> int:
        return len(self.taps)

    @property
    def num_taps(self) -> int:
        return len(self.taps[0])

    @property
    def gain(self) -> int:
        """The largest sum of |taps|, which bounds the growth of the integers."""
        return max(sum(map(abs, phase)) for phase in self.taps)


class _Scratch(threading.local):
    """Per-thread buffers for intermediate results, reused because page faults cost more than the arithmetic."""

    def __init__(self) -> None:
        self._memory: dict[str, NDArray[np.uint8]] = {}

    def array(self, use: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialised array, which replaces this thread's previous one for the same use."""
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self._memory.get(use)
        if memory is None or memory.size < num_bytes:
            memory = self._memory[use] = np.empty(num_bytes, np.uint8)
        return memory[:num_bytes].view(dtype).reshape(shape)


_scratch = _Scratch()


def crop_to_multiple(image: Pixels, scale: int) -> Pixels:
    """Return a view cropped at the bottom and right to multiples of `scale` px."""
    return image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]


def bicubic_down(hr: Pixels, scale: int) -> Pixels:
    """Downsample H x W x 3 (or H x W) uint8 by an integer factor. ValueError unless H and W are multiples of it."""
    _require_image(hr, scale)
    if hr.shape[0] % scale or hr.shape[1] % scale:
        size = f"{hr.shape[1]} x {hr.shape[0]} px"
        raise ValueError(f"expected a width and height that are multiples of {scale}, got {size}: crop_to_multiple()")
    return _resize(hr, _down_filter(scale))


def bicubic_up(lr: Pixels, scale: int) -> Pixels:
    """Upsample H x W x 3 (or H x W) uint8 by an integer factor."""
    _require_image(lr, scale)
    return _resize(lr, _up_filter(scale))


def _resize(image: Pixels, kernel: _Filter) -> Pixels:
    num_phases, step = kernel.num_phases, kernel.step
    height, width = image.shape[0] // step, image.shape[1] // step  # in outputs of one phase
    result = np.empty((height * num_phases, width * num_phases, *image.shape[2:]), np.uint8)
    mirrored = _mirrored(image, kernel)
    edge = _TILE_PX // max(step, num_phases)
    for top, left in product(range(0, height, edge), range(0, width, edge)):
        bottom, right = min(top + edge, height), min(left + edge, width)
        rows = slice(top * step, (bottom - 1) * step + kernel.num_taps)
        columns = slice(left * step, (right - 1) * step + kernel.num_taps)
        tile = result[top * num_phases : bottom * num_phases, left * num_phases : right * num_phases]
        _resize_tile(mirrored[rows, columns], kernel, tile)
    return result


def _mirrored(image: Pixels, kernel: _Filter) -> Pixels:
    """Return the image with the mirrored border that the filter needs, mirrored repeatedly for tiny images."""
    before, after = kernel.before, kernel.num_taps - kernel.step - kernel.before
    shape = (image.shape[0] + before + after, image.shape[1] + before + after, *image.shape[2:])
    mirrored = _scratch.array("mirrored", shape, np.uint8)
    cv2.copyMakeBorder(image, before, after, before, after, cv2.BORDER_REFLECT, mirrored)
    return mirrored


def _resize_tile(inputs: Pixels, kernel: _Filter, outputs: Pixels) -> None:
    half = _filter_rows(inputs, kernel, _exact_float(255 * kernel.gain))
    transposed = _scratch.array("transposed", (half.shape[1], half.shape[0], *half.shape[2:]), half.dtype)
    cv2.transpose(half, transposed)
    sums = _filter_rows(transposed, kernel, np.float64)
    levels = _scratch.array("levels", sums.shape, np.uint8)
    # OpenCV rounds ties to even. Adding a quarter of the sums' step rounds ties up and changes nothing else.
    divisor = kernel.denominator**2
    cv2.addWeighted(sums, 1 / divisor, sums, 0, 1 / (4 * divisor), levels, cv2.CV_8U)
    cv2.transpose(levels, outputs)


def _filter_rows(image: NDArray[Any], kernel: _Filter, dtype: _Float) -> NDArray[Any]:
    """Filter along the first axis. Returns integer-valued sums in `dtype`, not yet divided by the denominator."""
    inputs = _scratch.array("inputs", image.shape, dtype)
    np.copyto(inputs, image)
    num_outputs = (image.shape[0] - kernel.num_taps) // kernel.step + 1  # of each phase
    sums = _scratch.array("sums", (num_outputs * kernel.num_phases, *image.shape[1:]), dtype)
    for number, taps in enumerate(kernel.taps):
        total = sums[number :: kernel.num_phases]
        terms = [(inputs[offset :: kernel.step][:num_outputs], tap) for offset, tap in enumerate(taps) if tap]
        # Add the first two together, which avoids clearing the sums. There may be only one.
        (first, tap), (second, next_tap), *others = terms if len(terms) > 1 else [*terms, (inputs[:num_outputs], 0)]
        cv2.addWeighted(first, tap, second, next_tap, 0, total)
        for rows, tap in others:
            cv2.scaleAdd(rows, tap, total, total)
    return sums


@cache
def _down_filter(scale: int) -> _Filter:
    centre = Fraction(scale - 1, 2)  # of the first output, in input px
    return _integer_filter([_weights(centre, Fraction(scale))], step=scale)


@cache
def _up_filter(scale: int) -> _Filter:
    centres = [Fraction(2 * output + 1, 2 * scale) - Fraction(1, 2) for output in range(scale)]
    return _integer_filter([_weights(centre, Fraction(1)) for centre in centres], step=1)


def _weights(centre: Fraction, stretch: Fraction) -> dict[int, Fraction]:
    """Return the weight of each input px: the kernel around `centre`, `stretch` times as wide, normalised."""
    support = range(math.floor(centre - 2 * stretch), math.ceil(centre + 2 * stretch) + 1)
    weights = {px: _keys((px - centre) / stretch) for px in support}
    total = sum(weights.values())
    return {px: weight / total for px, weight in weights.items() if weight}


def _keys(x: Fraction) -> Fraction:
    """Cubic convolution kernel, Keys (1981), with a = -1/2."""
    x = abs(x)
    if x <= 1:
        return (3 * x**3 - 5 * x**2 + 2) / 2
    return (-(x**3) + 5 * x**2 - 8 * x + 4) / 2 if x < 2 else Fraction(0)


def _integer_filter(weights: list[dict[int, Fraction]], step: int) -> _Filter:
    denominator = math.lcm(*(weight.denominator for phase in weights for weight in phase.values()))
    support = range(min(map(min, weights)), max(map(max, weights)) + 1)
    taps = tuple(tuple(int(phase.get(px, 0) * denominator) for px in support) for phase in weights)
    return _Filter(-support.start, taps, step, denominator)


def _exact_float(largest: int) -> _Float:
    """Return the smallest float type that represents every integer up to `largest`."""
    return np.float32 if largest <= 1 << 24 else np.float64


def _require_image(image: Pixels, scale: int) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
        raise ValueError(f"expected H x W x 3 or H x W uint8 with pixels, got {image.shape} {image.dtype}")
    if not 1 <= scale <= _MAX_SCALE:
        raise ValueError(f"expected a scale of 1 to {_MAX_SCALE}, got {scale}")
