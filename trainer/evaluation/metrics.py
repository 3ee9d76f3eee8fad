"""PSNR and SSIM as reported in super-resolution papers: of 8-bit pixels, with a cropped border, in RGB and Y."""

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
NUM_SUMS = 8  # length of the list that `quality_sums` returns
_SSIM_SIGMA_PX = 1.5
_SSIM_BAND_PX = 48  # rows at a time, so that intermediate arrays stay in the CPU cache
_RANGE = 255.0
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2  # K1 = 0.01, K2 = 0.03


@dataclass(frozen=True)
class Quality:
    """Similarity of an image to its target: PSNR in dB (inf if identical) and SSIM (at most 1), in RGB and in Y."""

    psnr_rgb: float
    psnr_y: float
    ssim_rgb: float
    ssim_y: float


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return 10 log10(255² / MSE) in dB over all elements, inf if a equals b. Same shape and dtype, values 0-255."""
    _require_same_shape_and_dtype(a, b)
    squares = float(cv2.norm(a, b, cv2.NORM_L2SQR))
    return 10 * math.log10(_RANGE**2 * a.size / squares) if squares else math.inf


def ssim(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the structural similarity (Wang, Bovik, Sheikh, Simoncelli, 2004), averaged over pixels and channels.

    H x W or H x W x C, values 0-255. Gaussian window of 11 x 11 px, sigma 1.5 px, K1 = 0.01, K2 = 0.03, population
    covariance, and only windows that lie completely inside. Channels are independent. The maximum is 1.
    ValueError below 11 px.
    """
    _require_same_shape_and_dtype(a, b)
    if min(a.shape[:2]) < SSIM_WINDOW_PX:
        raise ValueError(f"SSIM needs {SSIM_WINDOW_PX} x {SSIM_WINDOW_PX} px, got {a.shape[1]} x {a.shape[0]} px")
    height, width = int(a.shape[0]) - SSIM_WINDOW_PX + 1, int(a.shape[1]) - SSIM_WINDOW_PX + 1
    bands = (
        slice(top, min(top + _SSIM_BAND_PX, height) + SSIM_WINDOW_PX - 1) for top in range(0, height, _SSIM_BAND_PX)
    )
    num_windows = height * width * (int(a.shape[2]) if a.ndim == 3 else 1)
    return math.fsum(_sum_of_similarities(a[band], b[band]) for band in bands) / num_windows


def _sum_of_similarities(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the sum of SSIM over all complete windows and all channels."""
    x, y = a.astype(np.float64), b.astype(np.float64)  # float32 loses the variance of flat areas: 1e-4 of SSIM
    mean_x, mean_y = _window_means(x), _window_means(y)
    covariance = _window_means(x * y)
    # SSIM needs only the sum of both variances, so four filters replace the formula's five.
    x *= x
    y *= y
    x += y
    variances = _window_means(x)
    product = mean_x * mean_y
    mean_x *= mean_x
    mean_y *= mean_y
    mean_x += mean_y  # now the sum of both squared means
    covariance -= product
    variances -= mean_x
    similarity = (2 * product + _C1) * (2 * covariance + _C2)
    mean_x += _C1
    variances += _C2
    mean_x *= variances
    similarity /= mean_x
    return float(similarity.sum())


def measure(output: Pixels, target: Pixels, border: int) -> Quality:
    """Compare two H x W x 3 uint8 images after cropping `border` px on every side (papers crop the scale)."""
    require_rgb(output)
    require_rgb(target)
    _require_same_shape_and_dtype(output, target)
    if border < 0 or min(output.shape[:2]) - 2 * border < SSIM_WINDOW_PX:
        size = f"{output.shape[1]} x {output.shape[0]} px"
        raise ValueError(f"expected at least {SSIM_WINDOW_PX} px inside a border of {border} px, got {size}")
    inside = slice(border, -border or None)
    output, target = output[inside, inside], target[inside, inside]
    output_y, target_y = luma_studio_range(output), luma_studio_range(target)
    return Quality(psnr(output, target), psnr(output_y, target_y), ssim(output, target), ssim(output_y, target_y))


def mean_quality(qualities: Sequence[Quality]) -> Quality:
    """Return the mean of each metric over the images: a row of a table. ValueError if there are no images.

    The PSNR of identical images is infinite. Such images are excluded from the mean PSNR, which they would otherwise
    dominate, but count in the mean SSIM. If all images are identical to their targets, the mean PSNR is inf.
    """
    if not qualities:
        raise ValueError("expected at least one image")
    return mean_of_sums(quality_sums(qualities))


def quality_sums(qualities: Iterable[Quality]) -> list[float]:
    """Return, for each of the four metrics, the count and the sum of its finite values. These add up across ranks."""
    columns = zip(*map(astuple, qualities), strict=True)
    finite = [[value for value in column if value != math.inf] for column in columns]
    return [number for values in finite for number in (len(values), math.fsum(values))] or [0.0] * NUM_SUMS


def mean_of_sums(sums: Sequence[float]) -> Quality:
    """Return the means for the result of `quality_sums`."""
    counts, totals = sums[::2], sums[1::2]
    return Quality(*(total / count if count else math.inf for count, total in zip(counts, totals, strict=True)))


def _window_means(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Gaussian-weighted mean of every complete window: 10 px smaller in both directions."""
    taps = cv2.getGaussianKernel(SSIM_WINDOW_PX, _SSIM_SIGMA_PX, cv2.CV_64F)
    edge = SSIM_WINDOW_PX // 2
    return np.asarray(cv2.sepFilter2D(image, -1, taps, taps), np.float64)[edge:-edge, edge:-edge]


def _require_same_shape_and_dtype(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"expected images of equal shape and dtype, got {a.shape} {a.dtype} and {b.shape} {b.dtype}")
