"""Check that the LR image of a pair shows the same as its HR image, in the same place and the same colours."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardgen.pairs.registration import Registration, register
from srshards.imaging.pixels import Pixels, require_rgb
from srshards.imaging.resample import resize

# The bounds were chosen with docs/reference/pairs.md's figures: no pair of the plain methods exceeds one.
MAX_SHIFT_HR_PX = 0.75  # sampling every Nth pixel displaces by at most half an HR pixel
MIN_SHIFT_BOUND_PX, MIN_STRETCH_BOUND_PX = 0.15, 0.2  # LR px; at large scales, 0.75 HR px cannot be measured
_SURE_SHIFT, _SURE_STRETCH = 4.0, 3.0  # displacements count as far as they exceed so many standard errors
MAX_BRIGHTNESS, MAX_CAST = 5.0, 7.5  # differences in grey levels
LEVELS_PER_NOISE = 0.6  # heavy compression and noise also change the brightness
MIN_CORRELATION = 0.1
MAX_TURNED_EXCESS = 0.3  # of the correlation with LR flipped or rotated
_SUSPICIOUS_CORRELATION = 0.6  # below it, LR is compared flipped and rotated as well
_FAR_PX, MIN_FAR_CORRELATION = 1.0, 0.5  # LR px; a match far away is likely by chance
_MIN_DETAIL = 3.0  # grey levels; of smoother HR images LR may show noise only
_MIN_INDEPENDENT = 400.0  # values; fewer correlate by chance
MIN_COLOUR_CORRELATION = 0.1
_MIN_COLOUR = 4.0  # grey levels, RMS; less colour is lost by compression
_DIGITS = 3


@dataclass(frozen=True)
class PairCheck:
    """How LR differs from HR.

    Displacements are in LR px, positive if LR's content is further right (x) or down (y). `shift` is that of the
    centre, `stretch` the further one outwards at the right and lower edge; `shift_error` and `stretch_error` are
    standard errors. An HR image without detail, e.g. a clear sky, tells nothing: both are 0, with errors of several px.
    `red`, `green` and `blue` are the differences LR - HR in grey levels (0-255): medians, which noise does not change;
    `noise` is the quartile deviation of the differences. `correlation` and `colour_correlation`, from -1 to 1, are
    those of band-pass filtered luma and of R - B; the latter is 1 if HR is almost grey. `turned_correlation` is the
    greatest with LR flipped or rotated; it is computed only if `correlation` is low, otherwise it is 0. `detail` is the
    RMS of HR's band-pass filtered luma in grey levels, `independent` about how many of its values are independent.
    """

    scale: int
    shift_x: float
    shift_y: float
    shift_error: float
    stretch_x: float
    stretch_y: float
    stretch_error: float
    red: float
    green: float
    blue: float
    noise: float
    correlation: float
    turned_correlation: float
    colour_correlation: float
    detail: float
    independent: float

    @property
    def shift(self) -> tuple[float, float]:
        return self.shift_x, self.shift_y

    @property
    def stretch(self) -> tuple[float, float]:
        return self.stretch_x, self.stretch_y

    @property
    def brightness(self) -> float:
        """The mean difference of red, green and blue, in grey levels."""
        return round((self.red + self.green + self.blue) / 3, _DIGITS)

    @property
    def cast(self) -> tuple[float, str]:
        """The largest difference of a channel beyond that of the brightness, in grey levels, and the channel's name."""
        channels = (self.red, "red"), (self.green, "green"), (self.blue, "blue")
        casts = [(round(level - self.brightness, _DIGITS), name) for level, name in channels]
        return max(casts, key=lambda cast: abs(cast[0]))

    @property
    def colour(self) -> float:
        """The size of `cast` in grey levels."""
        return abs(self.cast[0])

    @property
    def has_detail(self) -> bool:
        """Whether HR has enough detail to recognise another image by the correlation."""
        return self.detail >= _MIN_DETAIL and self.independent >= _MIN_INDEPENDENT

    def as_dict(self) -> dict[str, float]:
        """Return the `pair` of a sample's JSON: numbers by name, without the scale."""
        return {name: value for name, value in asdict(self).items() if name != "scale"}

    @classmethod
    def from_dict(cls, value: Mapping[str, float], scale: int) -> "PairCheck":
        """Parse the result of `as_dict`. KeyError when a number is missing."""
        return cls(scale, **{name: value[name] for name in _NAMES})


_NAMES = tuple(field.name for field in fields(PairCheck) if field.name != "scale")


def check_pair(hr: Pixels, lr: Pixels, scale: int) -> PairCheck:
    """Compare the images of a pair: H x W x 3 and H/scale x W/scale x 3, uint8 RGB.

    Equal images give equal results with any number of threads. ValueError for other shapes or types.
    """
    require_rgb(hr)
    require_rgb(lr)
    height, width = lr.shape[:2]
    if hr.shape[:2] != (height * scale, width * scale):
        raise ValueError(f"expected HR of {height * scale} x {width * scale} px for LR at {scale}x, got {hr.shape}")
    small = resize(hr, height, width, "area")
    found = register(hr, lr)
    levels, noise = _level_differences(small, lr)
    numbers = (
        *(*found.shift, found.shift_error, *found.stretch, found.stretch_error),
        *(*levels, noise, found.correlation, _turned_correlation(hr, lr, found), _colour_correlation(small, lr)),
        found.detail,
    )
    figures = [*map(_rounded, numbers), float(round(found.num_independent))]
    return PairCheck.from_dict(dict(zip(_NAMES, figures, strict=True)), scale)


def _turned_correlation(hr: Pixels, lr: Pixels, found: Registration) -> float:
    if found.correlation >= _SUSPICIOUS_CORRELATION:
        return 0.0
    turned = [lr[::-1], lr[:, ::-1], lr[::-1, ::-1]]
    if lr.shape[0] == lr.shape[1]:
        transposed = lr.transpose(1, 0, 2)
        turned += [transposed, transposed[::-1], transposed[:, ::-1], transposed[::-1, ::-1]]
    return max(0.0, *(register(hr, np.ascontiguousarray(one)).correlation for one in turned))


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


class Finding(NamedTuple):
    """A figure of a pair: as a multiple of its bound (above 1 is a problem), its name, text, and meaning beyond it."""

    severity: float
    name: str
    figure: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.meaning if self.severity > 1 else self.name}: {self.figure}"


def problem(check: PairCheck) -> str | None:
    """Return what is wrong with a pair, with the figure and its bound; None if nothing is."""
    finding = main_finding(check)
    return str(finding) if finding.severity > 1 else None


def findings(check: PairCheck) -> Iterator[Finding]:
    """Yield each figure with its bound; those first which explain the ones after them."""
    yield Finding(
        max(check.turned_correlation - check.correlation, 0.0) / MAX_TURNED_EXCESS if check.has_detail else 0.0,
        "orientation",
        f"correlation {check.turned_correlation:.2f} with it flipped or rotated, {check.correlation:.2f} as it is",
        "LR is flipped or rotated against HR",
    )
    shift = _certain(check.shift, _SURE_SHIFT * check.shift_error)
    least = MIN_FAR_CORRELATION if shift > _FAR_PX else MIN_CORRELATION
    yield Finding(
        (1 - check.correlation) / (1 - least) if check.has_detail else 0.0,
        "content",
        f"correlation {check.correlation:.2f}, expected at least {least}",
        "LR shows another image than HR",
    )
    is_swapped = check.colour_correlation < -MIN_COLOUR_CORRELATION
    yield Finding(
        (1 - check.colour_correlation) / (1 - MIN_COLOUR_CORRELATION),
        "colours",
        f"correlation of red - blue {check.colour_correlation:.2f}, expected at least {MIN_COLOUR_CORRELATION}",
        "red and blue of LR are swapped" if is_swapped else "LR does not have the colours of HR",
    )
    bound, stretch_bound = (
        max(MAX_SHIFT_HR_PX / check.scale, least) for least in (MIN_SHIFT_BOUND_PX, MIN_STRETCH_BOUND_PX)
    )
    yield Finding(
        shift / bound,
        "displacement (right, down)",
        f"{_vector(check.shift)} LR px, expected at most {bound:.2f}",
        "LR is displaced against HR (right, down)",
    )
    yield Finding(
        _certain(check.stretch, _SURE_STRETCH * check.stretch_error) / stretch_bound,
        "magnification (displacement outwards at the right and lower edge)",
        f"{_vector(check.stretch)} LR px, expected at most {stretch_bound:.2f}",
        "LR is not magnified like HR, as with align_corners (displacement outwards at the right and lower edge)",
    )
    brightness_bound, cast_bound = (most + LEVELS_PER_NOISE * check.noise for most in (MAX_BRIGHTNESS, MAX_CAST))
    yield Finding(
        abs(check.brightness) / brightness_bound,
        "brightness",
        f"{check.brightness:+.1f} grey levels, expected at most {brightness_bound:.1f}",
        f"LR is {'brighter' if check.brightness > 0 else 'darker'} than HR",
    )
    cast, channel = check.cast
    yield Finding(
        abs(cast) / cast_bound,
        "colour cast",
        f"{channel} {cast:+.1f} grey levels beyond the brightness, expected at most {cast_bound:.1f}",
        "LR has a colour cast against HR",
    )


def severity(check: PairCheck) -> float:
    """Return the worst figure of a pair as a multiple of its bound: above 1 if the pair has a problem."""
    return max(finding.severity for finding in findings(check))


def main_finding(check: PairCheck) -> Finding:
    """Return the first figure beyond its bound; if there is none, the figure closest to its bound."""
    found = list(findings(check))
    return next((one for one in found if one.severity > 1), max(found, key=lambda one: one.severity))


def _certain(displacement: tuple[float, float], uncertainty: float) -> float:
    """Return the larger of both displacements, less its uncertainty."""
    return max(max(map(abs, displacement)) - uncertainty, 0.0)


def _vector(displacement: tuple[float, float]) -> str:
    return ", ".join(f"{length:.2f}" for length in displacement)
