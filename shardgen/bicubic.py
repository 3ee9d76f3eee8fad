"""Bicubic resizing by whole factors, equal to MATLAB's imresize: what the papers mean by "bicubic", LR and baseline.

Kernel: Keys (1981), a = -0.5, stretched by the factor when shrinking, which is the antialiasing; pixel centres aligned;
borders mirrored with the edge pixel doubled; one rounding at the end, half up. That is imresize of an image of doubles,
saved as 8 bits. (Given uint8, imresize also rounds between the two directions, which moves some pixels by one level.)

For a whole factor all weights are fractions of one small denominator, so everything here is sums of whole numbers,
which floats hold exactly: the result is the same on every machine, and a tie is a tie.
"""

import math
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.pixels import Pixels

_Float = type[np.float32] | type[np.float64]
_MAX_SCALE = 16  # whole numbers stay far below 2^53, which float64 still holds exactly
_STRIP_BYTES = 1 << 18  # results at a time, so that what is made on the way stays in the cache


class _Phase(NamedTuple):
    """Output i of a phase is the sum of taps[k] / denominator x input[first + i step + k]."""

    first: int  # below zero where the border is mirrored
    taps: tuple[int, ...]


class _Filter(NamedTuple):
    """One phase when shrinking; as many as the factor when enlarging, and output i belongs to phase i mod factor."""

    phases: tuple[_Phase, ...]
    step: int
    denominator: int

    @property
    def gain(self) -> int:
        """The largest sum of |taps|: whole numbers grow by no more than this."""
        return max(sum(map(abs, phase.taps)) for phase in self.phases)


def crop_to_multiple(image: Pixels, scale: int) -> Pixels:
    """The image without what exceeds a multiple of `scale` px at the bottom and at the right: a view."""
    return image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]


def bicubic_down(hr: Pixels, scale: int) -> Pixels:
    """Shrink H x W x 3 (or H x W) uint8 by a whole factor. ValueError unless H and W are multiples of it."""
    _require_image(hr, scale)
    if hr.shape[0] % scale or hr.shape[1] % scale:
        size = f"{hr.shape[1]} x {hr.shape[0]} px"
        raise ValueError(f"expected a width and height that are multiples of {scale}, got {size}: crop_to_multiple()")
    return _resize(hr, _shrinking(scale))


def bicubic_up(lr: Pixels, scale: int) -> Pixels:
    """Enlarge H x W x 3 (or H x W) uint8 by a whole factor."""
    _require_image(lr, scale)
    return _resize(lr, _enlarging(scale))


def _resize(image: Pixels, kernel: _Filter) -> Pixels:
    half = _filter_rows(image, kernel, _exact_float(255 * kernel.gain))
    turned = _filter_rows(cv2.transpose(half), kernel, np.float64, divisor=kernel.denominator**2)
    return np.asarray(cv2.transpose(turned), np.uint8)


def _filter_rows(image: NDArray[Any], kernel: _Filter, dtype: _Float, divisor: int = 0) -> NDArray[Any]:
    """Filter along the first axis. Sums of whole numbers in `dtype`; with a divisor they become grey levels (uint8)."""
    num_phases, num_outputs = len(kernel.phases), image.shape[0] // kernel.step  # outputs of each phase
    inputs, above = _mirrored(image.astype(dtype), kernel)
    result = np.empty((num_phases * num_outputs, *image.shape[1:]), np.uint8 if divisor else dtype)
    strip = max(_STRIP_BYTES // inputs[0].nbytes, 1)
    for (number, phase), top in product(enumerate(kernel.phases), range(0, num_outputs, strip)):
        outputs = result[number::num_phases][top : top + strip]
        total = np.zeros(outputs.shape, dtype)
        for place, tap in enumerate(phase.taps, start=above + phase.first + top * kernel.step):
            total += inputs[place :: kernel.step][: len(outputs)] * dtype(tap)
        if divisor:
            # Exact: a tie has a float64 of its own, and nothing else comes nearer to one than 1 / (2 divisor).
            total /= divisor
            total += 0.5
            np.clip(total, 0, 255, out=total)
        outputs[...] = total
    return result


def _mirrored(image: NDArray[Any], kernel: _Filter) -> tuple[NDArray[Any], int]:
    """The image with as many mirrored rows above and below as the filter asks for, and the number of those above."""
    above = -min(phase.first for phase in kernel.phases)
    height, last = image.shape[0], image.shape[0] - kernel.step
    below = max(last + phase.first + len(phase.taps) for phase in kernel.phases) - height
    # An image that is smaller than its border is mirrored again.
    rows = np.arange(-above, height + below) % (2 * height)
    return image[np.minimum(rows, 2 * height - 1 - rows)], above


@cache
def _shrinking(scale: int) -> _Filter:
    centre = Fraction(scale - 1, 2)  # of the first output, in inputs
    return _whole_numbers([_weights(centre, Fraction(scale))], step=scale)


@cache
def _enlarging(scale: int) -> _Filter:
    centres = [Fraction(2 * output + 1, 2 * scale) - Fraction(1, 2) for output in range(scale)]
    return _whole_numbers([_weights(centre, Fraction(1)) for centre in centres], step=1)


def _weights(centre: Fraction, stretch: Fraction) -> dict[int, Fraction]:
    """By input: the kernel around `centre`, `stretch` times as wide, its sum 1."""
    reach = range(math.floor(centre - 2 * stretch), math.ceil(centre + 2 * stretch) + 1)
    weights = {place: _keys((place - centre) / stretch) for place in reach}
    total = sum(weights.values())
    return {place: weight / total for place, weight in weights.items() if weight}


def _keys(x: Fraction) -> Fraction:
    """Cubic convolution kernel, Keys (1981), with a = -1/2."""
    x = abs(x)
    if x <= 1:
        return (3 * x**3 - 5 * x**2 + 2) / 2
    return (-(x**3) + 5 * x**2 - 8 * x + 4) / 2 if x < 2 else Fraction(0)


def _whole_numbers(weights: list[dict[int, Fraction]], step: int) -> _Filter:
    denominator = math.lcm(*(weight.denominator for phase in weights for weight in phase.values()))
    phases = []
    for phase in weights:
        places = range(min(phase), max(phase) + 1)
        phases.append(_Phase(places.start, tuple(int(phase.get(place, 0) * denominator) for place in places)))
    return _Filter(tuple(phases), step, denominator)


def _exact_float(largest: int) -> _Float:
    """The faster float that holds every whole number up to `largest`."""
    return np.float32 if largest <= 1 << 24 else np.float64


def _require_image(image: Pixels, scale: int) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
        raise ValueError(f"expected H x W x 3 or H x W uint8 with pixels, got {image.shape} {image.dtype}")
    if not 1 <= scale <= _MAX_SCALE:
        raise ValueError(f"expected a scale of 1 to {_MAX_SCALE}, got {scale}")


def opencv_cubic_up(image: Pixels, scale: int) -> Pixels:
    """Enlarge H x W (x 3) uint8 with OpenCV's kernel, a = -0.75: what shardgen makes `up` with by default."""
    size = (image.shape[1] * scale, image.shape[0] * scale)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
