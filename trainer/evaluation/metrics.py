"""PSNR and SSIM as the tables of super-resolution papers have them: of 8-bit pixels, a border cropped, RGB and Y."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srshards.imaging.luma import luma_studio_range
from srshards.imaging.pixels import Pixels, require_rgb

SSIM_WINDOW_PX = 11
NUM_SUMS = 8  # of `quality_sums`
_SSIM_SIGMA_PX = 1.5
_SSIM_BAND_PX = 48  # rows at a time, so that what is made on the way stays in the cache
_RANGE = 255.0
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2  # K1 = 0.01, K2 = 0.03


@dataclass(frozen=True)
class Quality:
    """How near an image is to its target: PSNR in dB (inf when they are equal), SSIM at most 1; of RGB and of luma."""

    psnr_rgb: float
    psnr_y: float
    ssim_rgb: float
    ssim_y: float


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    """10 log10(255² / MSE) in dB over all elements, inf when a equals b. Of one shape and dtype, grey levels 0-255."""
    _require_alike(a, b)
    squares = float(cv2.norm(a, b, cv2.NORM_L2SQR))
    return 10 * math.log10(_RANGE**2 * a.size / squares) if squares else math.inf


def ssim(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Structural similarity (Wang, Bovik, Sheikh, Simoncelli, 2004), at most 1, mean over pixels and channels.

    H x W or H x W x C, grey levels 0-255. Gaussian window of 11 x 11 px, sigma 1.5 px, K1 = 0.01, K2 = 0.03, the
    population's covariance, and only windows that lie wholly inside. Channels are measured one by one.
    ValueError below 11 px.
    """
    _require_alike(a, b)
    if min(a.shape[:2]) < SSIM_WINDOW_PX:
        raise ValueError(f"SSIM needs {SSIM_WINDOW_PX} x {SSIM_WINDOW_PX} px, got {a.shape[1]} x {a.shape[0]} px")
    height, width = int(a.shape[0]) - SSIM_WINDOW_PX + 1, int(a.shape[1]) - SSIM_WINDOW_PX + 1
    bands = (
        slice(top, min(top + _SSIM_BAND_PX, height) + SSIM_WINDOW_PX - 1) for top in range(0, height, _SSIM_BAND_PX)
    )
    num_windows = height * width * (int(a.shape[2]) if a.ndim == 3 else 1)
    return math.fsum(_sum_of_similarities(a[band], b[band]) for band in bands) / num_windows


def _sum_of_similarities(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Sum of SSIM over all whole windows and all channels."""
    x, y = a.astype(np.float64), b.astype(np.float64)  # the variance of a flat sky is lost in float32: 1e-4 of SSIM
    mean_x, mean_y = _window_means(x), _window_means(y)
    covariance = _window_means(x * y)
    # Only the sum of both variances is asked for, so four filters do where the formula has five.
    x *= x
    y *= y
    x += y
    variances = _window_means(x)
    product = mean_x * mean_y
    mean_x *= mean_x
    mean_y *= mean_y
    mean_x += mean_y  # is now the sum of both squares
    covariance -= product
    variances -= mean_x
    similarity = (2 * product + _C1) * (2 * covariance + _C2)
    mean_x += _C1
    variances += _C2
    mean_x *= variances
    similarity /= mean_x
    return float(similarity.sum())


def measure(output: Pixels, target: Pixels, border: int) -> Quality:
    """All four figures of two H x W x 3 uint8 images after cropping `border` px on every side (papers: the scale)."""
    require_rgb(output)
    require_rgb(target)
    _require_alike(output, target)
    if border < 0 or min(output.shape[:2]) - 2 * border < SSIM_WINDOW_PX:
        size = f"{output.shape[1]} x {output.shape[0]} px"
        raise ValueError(f"{SSIM_WINDOW_PX} px must be left without a border of {border} px, got {size}")
    inside = slice(border, -border or None)
    output, target = output[inside, inside], target[inside, inside]
    output_y, target_y = luma_studio_range(output), luma_studio_range(target)
    return Quality(psnr(output, target), psnr(output_y, target_y), ssim(output, target), ssim(output_y, target_y))


def mean_quality(qualities: Sequence[Quality]) -> Quality:
    """The mean over images, each figure by itself: a table's row. ValueError when there are none.

    An image that was hit exactly has no finite PSNR. It is left out of the mean of PSNRs (one such image would
    otherwise hide all others), and not out of that of SSIMs. When all were hit exactly, the mean is inf.
    """
    if not qualities:
        raise ValueError("no images to take the mean of")
    return mean_of_sums(quality_sums(qualities))


def quality_sums(qualities: Iterable[Quality]) -> list[float]:
    """For each of the four figures how many are finite, and their sum. Those of several sets of images add up."""
    columns = zip(*map(astuple, qualities), strict=True)
    finite = [[value for value in column if value != math.inf] for column in columns]
    return [number for values in finite for number in (len(values), math.fsum(values))] or [0.0] * NUM_SUMS


def mean_of_sums(sums: Sequence[float]) -> Quality:
    """The mean that these sums of `quality_sums` are of."""
    counts, totals = sums[::2], sums[1::2]
    return Quality(*(total / count if count else math.inf for count, total in zip(counts, totals, strict=True)))


def _window_means(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian-weighted mean of every whole window: the result is 10 px smaller in both directions."""
    taps = cv2.getGaussianKernel(SSIM_WINDOW_PX, _SSIM_SIGMA_PX, cv2.CV_64F)
    edge = SSIM_WINDOW_PX // 2
    return np.asarray(cv2.sepFilter2D(image, -1, taps, taps), np.float64)[edge:-edge, edge:-edge]


def _require_alike(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"expected images of one shape, got {a.shape} {a.dtype} and {b.shape} {b.dtype}")
