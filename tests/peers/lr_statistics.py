"""Statistics of LR images, and a test of whether two ways of degrading the same HR images agree in them."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]
Numbers = NDArray[np.float64]

_BORDER_PX = 8  # ignored: DiffJPEG pads images with black, which darkens the blocks at the border
_INNER = np.s_[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX]
_SMOOTH_SHARE = 0.2  # of the pixels: those with the least variance around them in HR
_HIGH_PASS = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32) / 6  # unit gain for white noise (Immerkaer 1996)
_BANDS = ((0.0, 0.125), (0.125, 0.25), (0.25, 0.375), (0.375, 0.5))  # radial frequencies in cycles per px
_EPSILON = 1e-3


def describe(hr: Pixels, lr: Pixels) -> dict[str, float]:
    """Return the statistics of an LR image, most of them relative to HR shrunk by area averaging."""
    clean = cv2.resize(hr, lr.shape[1::-1], interpolation=cv2.INTER_AREA)
    luma, *chroma = _planes(lr)
    clean_luma, *clean_chroma = _planes(clean)
    smooth = _smooth(clean_luma)
    noise = luma - clean_luma
    red, _, blue = (_high_pass(plane)[smooth] for plane in np.moveaxis(lr[_INNER].astype(np.float32), 2, 0))
    return {
        # fidelity and tone
        "PSNR to shrunk HR": -10 * np.log10(np.mean(np.square(lr.astype(np.float32) - clean)) / 255**2 + 1e-9),
        "brightness": float(noise.mean()),
        "contrast": _log_ratio(luma.std(), clean_luma.std()),
        "saturation": _log_ratio(np.hypot(*chroma).mean(), np.hypot(*clean_chroma).mean()),
        "clipped pixels": float(((lr == 0) | (lr == 255)).mean()),
        # sharpness
        "Laplacian": _log_ratio(cv2.Laplacian(luma, cv2.CV_32F).std(), cv2.Laplacian(clean_luma, cv2.CV_32F).std()),
        "overshoot": _overshoot(luma, clean_luma),
        "anisotropy": _log_ratio(np.abs(np.diff(luma, axis=1)).mean(), np.abs(np.diff(luma, axis=0)).mean())
        - _log_ratio(np.abs(np.diff(clean_luma, axis=1)).mean(), np.abs(np.diff(clean_luma, axis=0)).mean()),
        **{
            f"luma spectrum, {low:g} to {high:g}": power - clean_power
            for (low, high), power, clean_power in zip(_BANDS, _spectrum(luma), _spectrum(clean_luma), strict=True)
        },
        **{
            f"chroma spectrum, {low:g} to {high:g}": power
            for (low, high), power in zip(_BANDS, np.mean([_spectrum(plane) for plane in chroma], axis=0), strict=True)
        },
        # noise in smooth areas
        "luma noise": np.abs(_high_pass(luma)[smooth]).mean(),
        "chroma noise": np.mean([np.abs(_high_pass(plane)[smooth]).mean() for plane in chroma]),
        "noise, red against blue": _correlation(red, blue),
        "grain of luma noise": _lag_1(noise, smooth),
        "grain of chroma noise": np.mean([_lag_1(a - b, smooth) for a, b in zip(chroma, clean_chroma, strict=True)]),
        "coarse chroma noise": np.mean([(a - b)[smooth].std() for a, b in zip(chroma, clean_chroma, strict=True)]),
        # JPEG
        "luma blocks of 8 px": _step_at(luma, 8),
        "chroma blocks of 16 px": np.mean([_step_at(plane, 16) for plane in chroma]),
        "chroma pairs of 2 px": np.mean([_step_at(plane, 2) for plane in chroma]),
        "vanishing DCT coefficients": _vanishing(luma),
    }


def _planes(image: Pixels) -> tuple[Plane, Plane, Plane]:
    """Return Y, Cb and Cr of JPEG, centred at 0 except Y, without the border."""
    red, green, blue = np.moveaxis(image.astype(np.float32), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma[_INNER], ((blue - luma) / 1.772)[_INNER], ((red - luma) / 1.402)[_INNER]


def _smooth(clean: Plane) -> NDArray[np.bool_]:
    mean, square = (cv2.blur(plane, (7, 7)) for plane in (clean, clean * clean))
    variance = square - mean * mean
    return variance <= np.quantile(variance, _SMOOTH_SHARE)


def _high_pass(plane: Plane) -> Plane:
    return cv2.filter2D(plane, -1, _HIGH_PASS)


def _log(value: Any) -> float:
    return float(np.log(value + _EPSILON))


def _log_ratio(value: Any, reference: Any) -> float:
    return _log(value) - _log(reference)


def _correlation(one: Plane, other: Plane) -> float:
    scale = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / scale) if scale else 0.0


def _lag_1(plane: Plane, where: NDArray[np.bool_]) -> float:
    both = where[:, 1:] & where[:, :-1]
    return _correlation(plane[:, 1:][both], plane[:, :-1][both])


def _overshoot(luma: Plane, clean: Plane) -> float:
    """Mean excess over the range of the 5 x 5 neighbourhood in shrunk HR."""
    kernel = np.ones((5, 5), np.uint8)
    excess = np.maximum(luma - cv2.dilate(clean, kernel), cv2.erode(clean, kernel) - luma)
    return _log(np.maximum(excess, 0).mean())


def _spectrum(plane: Plane) -> list[float]:
    """Return the log of the mean power in each radial band."""
    height, width = plane.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.fft2((plane - plane.mean()) * window)) ** 2 / (window**2).sum()
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    return [_log(power[(low <= radius) & (radius < high)].mean()) for low, high in _BANDS]


def _step_at(plane: Plane, period: int) -> float:
    """Return by how many grey levels steps across the lines of a grid from the image's corner exceed all others."""
    excess = []
    for axis in (0, 1):
        steps = np.abs(np.diff(plane, axis=axis)).mean(axis=1 - axis)
        on_grid = (np.arange(len(steps)) + _BORDER_PX + 1) % period == 0
        excess.append(steps[on_grid].mean() - steps[~on_grid].mean())
    return float(np.mean(excess))


def _vanishing(luma: Plane) -> float:
    """Return the share of AC coefficients near 0 in the blocks of 8 x 8 px from the corner."""
    height, width = (edge - edge % 8 for edge in luma.shape)
    blocks = luma[:height, :width].reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
    position = np.arange(8)
    dct = np.cos((2 * position + 1) * position[:, None] * np.pi / 16) / 2
    dct[0] /= np.sqrt(2)
    coefficients = dct @ blocks @ dct.T
    coefficients[..., 0, 0] = np.inf
    return float((np.abs(coefficients) < 0.5).mean())


# ---- comparison


@dataclass(frozen=True)
class Comparison:
    """Kolmogorov-Smirnov distance of a statistic, and the distance that chance exceeds too rarely."""

    distance: float
    critical: float

    @property
    def differs(self) -> bool:
        return self.distance > self.critical


def compare(
    one: list[dict[str, float]], other: list[dict[str, float]], false_alarms: float = 0.01, permutations: int = 4000
) -> dict[str, Comparison]:
    """Compare two degradations of the same HR images in all statistics.

    `false_alarms` is the probability that any of the statistics differs by chance. If both degradations draw from the
    same distribution, exchanging the two LR images of an HR changes nothing, so random exchanges give the distribution
    of all distances at once, including their dependence on each other and on the common HR. A distance counts relative
    to the median of its own distribution, because statistics that follow from HR vary less.
    """
    names = list(one[0])
    values = np.array([[[row[name] for row in rows] for rows in (one, other)] for name in names])
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (permutations, len(one)))
    signs[0] = 1
    distances = np.stack([_distances(a, b, signs) for a, b in values], axis=1)
    medians = np.median(distances, axis=0)
    highest = np.quantile((distances / medians).max(axis=1), 1 - false_alarms)
    return {
        name: Comparison(float(distance), float(highest * median))
        for name, distance, median in zip(names, distances[0], medians, strict=True)
    }


def _distances(one: Numbers, other: Numbers, signs: Numbers) -> Numbers:
    """Return Kolmogorov-Smirnov distances of two samples, one per row of signs; -1 exchanges the values of a pair."""
    pooled = np.concatenate((one, other))
    order = np.argsort(pooled, kind="stable")
    weight = np.concatenate((signs, -signs), axis=1)[:, order] / len(one)
    is_last_of_ties = np.append(np.diff(pooled[order]) > 0, True)
    return np.abs(np.cumsum(weight, axis=1)[:, is_last_of_ties]).max(axis=1)
