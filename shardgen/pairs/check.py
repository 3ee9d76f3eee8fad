"""Check that the LR image of a pair shows the same as its HR image, in the same place and the same colours."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from shardgen.pairs.registration import register
from srshards.imaging.pixels import Pixels, require_rgb

# The bounds were chosen with docs/pairs.md's figures: no pair of the plain methods exceeds one.
MAX_SHIFT_HR_PX = 0.75  # sampling every Nth pixel displaces by at most half an HR pixel
MIN_SHIFT_BOUND_PX = 0.15  # LR px; at large scales, 0.75 HR px cannot be measured
_SURE = 3.0  # a displacement counts if it exceeds the bound by so many standard errors
MAX_LEVELS = 5.0  # difference of brightness and colour, in grey levels
LEVELS_PER_NOISE = 0.6  # heavy compression and noise also change the brightness
MIN_CORRELATION = 0.15
_MIN_DETAIL = 3.0  # grey levels; of smoother HR images LR may show noise only
_MIN_INDEPENDENT = 400.0  # values; fewer correlate by chance
MIN_COLOUR_CORRELATION = 0.1
_MIN_COLOUR = 4.0  # grey levels, RMS; less colour is lost by compression
_DIGITS = 3


@dataclass(frozen=True)
class PairCheck:
    """How LR differs from HR. Displacements are in LR px, positive if LR's content is further right or down.

    `shift` is that of the centre (right, down), `stretch` the further displacement outwards at the right and lower edge;
    `shift_error` and `stretch_error` are their standard errors. An HR image without detail, e.g. a clear sky, tells
    nothing: both are 0, with errors of several px. `brightness` is the difference in grey levels (0-255), LR - HR,
    `colour` what red, green and blue differ beyond it; both from medians, which noise does not change. `noise` is the
    quartile deviation of the levels' differences. `correlation` and `colour_correlation` are those of band-pass filtered
    luma and of R - B, from -1 to 1; the latter is 1 if HR is almost grey. `detail` is the RMS of HR's band-pass filtered
    luma in grey levels, `independent` the number of its values that are independent.
    """

    scale: int
    shift: tuple[float, float]
    shift_error: float
    stretch: tuple[float, float]
    stretch_error: float
    brightness: float
    colour: tuple[float, float, float]
    noise: float
    correlation: float
    colour_correlation: float
    detail: float
    independent: float

    def as_dict(self) -> dict[str, float]:
        """Return the `pair` of a sample's JSON: numbers by name, without the scale."""
        return {
            "shift_x": self.shift[0],
            "shift_y": self.shift[1],
            "shift_error": self.shift_error,
            "stretch_x": self.stretch[0],
            "stretch_y": self.stretch[1],
            "stretch_error": self.stretch_error,
            "brightness": self.brightness,
            "red": self.colour[0],
            "green": self.colour[1],
            "blue": self.colour[2],
            "noise": self.noise,
            "correlation": self.correlation,
            "colour_correlation": self.colour_correlation,
            "detail": self.detail,
            "independent": self.independent,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], scale: int) -> "PairCheck":
        """Parse the result of `as_dict`. KeyError when a number is missing."""
        return cls(
            scale,
            shift=(value["shift_x"], value["shift_y"]),
            stretch=(value["stretch_x"], value["stretch_y"]),
            colour=(value["red"], value["green"], value["blue"]),
            **{name: value[name] for name in _PLAIN},
        )


_PLAIN = (
    "shift_error",
    "stretch_error",
    "brightness",
    "noise",
    "correlation",
    "colour_correlation",
    "detail",
    "independent",
)


def check_pair(hr: Pixels, lr: Pixels, scale: int) -> PairCheck:
    """Compare the images of a pair: H x W x 3 and H/scale x W/scale x 3, uint8 RGB.

    Equal images give equal results with any number of threads. ValueError for other shapes or types.
    """
    require_rgb(hr)
    require_rgb(lr)
    height, width = lr.shape[:2]
    if hr.shape[:2] != (height * scale, width * scale):
        raise ValueError(f"expected HR of {height * scale} x {width * scale} px for LR at {scale}x, got {hr.shape}")
    small = np.asarray(cv2.resize(hr, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    found = register(hr, lr)
    medians, noise = _level_differences(small, lr)
    brightness = sum(medians) / 3
    return PairCheck(
        scale,
        shift=(_rounded(found.shift[0]), _rounded(found.shift[1])),
        shift_error=_rounded(found.shift_error),
        stretch=(_rounded(found.stretch[0]), _rounded(found.stretch[1])),
        stretch_error=_rounded(found.stretch_error),
        brightness=_rounded(brightness),
        colour=(
            _rounded(medians[0] - brightness),
            _rounded(medians[1] - brightness),
            _rounded(medians[2] - brightness),
        ),
        noise=_rounded(noise),
        correlation=_rounded(found.correlation),
        colour_correlation=_rounded(_colour_correlation(small, lr)),
        detail=_rounded(found.detail),
        independent=float(round(found.num_independent)),
    )


def _rounded(value: float) -> float:
    return round(value, _DIGITS) + 0.0  # no -0.0


def _level_differences(small: Pixels, lr: Pixels) -> tuple[list[float], float]:
    """Return the median of LR - HR of each channel, and the mean of the channels' quartile deviations, in levels."""
    difference = np.subtract(lr, small, dtype=np.int16) + 255
    quartiles = [_quartiles(np.bincount(difference[..., channel].ravel(), minlength=511)) for channel in range(3)]
    return [median for _, median, _ in quartiles], sum(high - low for low, _, high in quartiles) / 6


def _quartiles(counts: NDArray[np.intp]) -> tuple[float, float, float]:
    """Return the quartiles of differences from -255 to 255, interpolated within the level."""
    ends = np.cumsum(counts)

    def quantile(fraction: float) -> float:
        rank = fraction * int(ends[-1])
        level = int(np.searchsorted(ends, rank))
        return level - 255 - 0.5 + (rank - int(ends[level] - counts[level])) / int(counts[level])

    return quantile(0.25), quantile(0.5), quantile(0.75)


def _colour_correlation(small: Pixels, lr: Pixels) -> float:
    """Return the correlation about zero of R - B; 1 if that of HR is too small, 0 if LR has no colour."""
    of_hr, of_lr = (np.subtract(image[..., 0], image[..., 2], dtype=np.int64).ravel() for image in (small, lr))
    hr_energy, lr_energy = int(of_hr @ of_hr), int(of_lr @ of_lr)
    if hr_energy < _MIN_COLOUR**2 * len(of_hr):
        return 1.0
    return int(of_hr @ of_lr) / math.sqrt(hr_energy * lr_energy) if lr_energy else 0.0


def shift_bound(scale: int) -> float:
    """Return the largest displacement that is accepted, in LR px."""
    return max(MAX_SHIFT_HR_PX / scale, MIN_SHIFT_BOUND_PX)


def levels_bound(noise: float) -> float:
    """Return the largest difference of brightness and of a channel that is accepted, in grey levels."""
    return MAX_LEVELS + LEVELS_PER_NOISE * noise


def problem(check: PairCheck) -> str | None:
    """Return what is wrong with a pair, with the figure and its bound; None if nothing is."""
    return next((sentence for severity, sentence in _findings(check) if severity > 1), None)


def severity(check: PairCheck) -> float:
    """Return the greatest of the pair's figures as a multiple of its bound: above 1 if the pair has a problem."""
    return max(severity for severity, _ in _findings(check))


def _findings(check: PairCheck) -> Iterator[tuple[float, str]]:
    """Yield severity and sentence of each figure; those first which explain the ones after them."""
    is_textured = check.detail >= _MIN_DETAIL and check.independent >= _MIN_INDEPENDENT
    yield (
        (1 - check.correlation) / (1 - MIN_CORRELATION) if is_textured else 0.0,
        f"LR shows another image than HR, or it is flipped or rotated: correlation {check.correlation:.2f}, expected "
        f"at least {MIN_CORRELATION:.2f}",
    )
    what = "red and blue of LR are swapped" if check.colour_correlation < -MIN_COLOUR_CORRELATION else "LR lacks colour"
    yield (
        (1 - check.colour_correlation) / (1 - MIN_COLOUR_CORRELATION),
        f"{what}: correlation of R - B {check.colour_correlation:.2f}, expected at least {MIN_COLOUR_CORRELATION:.2f}",
    )
    bound = shift_bound(check.scale)
    yield (
        _certain(check.shift, check.shift_error) / bound,
        f"LR is displaced against HR by {_vector(check.shift)} LR px (right, down), more than {bound:.2f}",
    )
    yield (
        _certain(check.stretch, check.stretch_error) / bound,
        f"LR has another magnification than HR, as with align_corners: at its right and lower edge it is displaced by "
        f"{_vector(check.stretch)} LR px, more than {bound:.2f}",
    )
    levels = levels_bound(check.noise)
    yield (
        abs(check.brightness) / levels,
        f"LR is {'brighter' if check.brightness > 0 else 'darker'} than HR by {abs(check.brightness):.1f} grey levels, "
        f"more than {levels:.1f}",
    )
    channel = max(range(3), key=lambda number: abs(check.colour[number]))
    difference = check.colour[channel]
    yield (
        abs(difference) / levels,
        f"LR has {'more' if difference > 0 else 'less'} {('red', 'green', 'blue')[channel]} than HR by "
        f"{abs(difference):.1f} grey levels, more than {levels:.1f}",
    )


def _certain(displacement: tuple[float, float], error: float) -> float:
    """Return the larger of both displacements, less its uncertainty."""
    return max(max(map(abs, displacement)) - _SURE * error, 0.0)


def _vector(displacement: tuple[float, float]) -> str:
    return ", ".join(f"{length:.2f}" for length in displacement)
