"""PSNR and SSIM as reported in super-resolution papers: of 8-bit pixels, with a cropped border, in RGB and Y.

They are computed on the device of the images, in float64: float32 loses the variance of flat areas, 1e-4 of SSIM. Per
image of 512 px that is about 1 GFLOP, which GPUs with little float64 throughput also do in a few milliseconds.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from srshards.imaging.luma import STUDIO_BLACK, STUDIO_WEIGHTS
from trainer.evaluation.scores import mean_scores, score_sums
from trainer.metrics_table import OWN, SSIM_WINDOW_PX

_SSIM_SIGMA_PX = 1.5
_MARGIN_PX = SSIM_WINDOW_PX - 1  # by which an image is larger than its complete windows
_BLOCK_PX = 48  # windows per block and direction, so that a block stays in a CPU's cache
_RANGE = 255.0
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2  # K1 = 0.01, K2 = 0.03


@dataclass(frozen=True)
class Quality:
    """Similarity of an image to its target: PSNR in dB (inf if identical) and SSIM (at most 1), in RGB and in Y."""

    psnr_rgb: float
    psnr_y: float
    ssim_rgb: float
    ssim_y: float


def measure(outputs: Tensor, targets: Tensor, border: int) -> Tensor:
    """Compare images after cropping `border` px on every side (papers crop the scale), without waiting for the device.

    Both are N x 3 x H x W uint8 RGB on the same device. Returns N x 4 float64 there: the fields of `Quality`.

    PSNR is 10 log10(255² / MSE), inf for identical images. SSIM (Wang, Bovik, Sheikh, Simoncelli, 2004) has a Gaussian
    window of 11 x 11 px, sigma 1.5 px, K1 = 0.01, K2 = 0.03 and the population covariance; its mean is over channels,
    which are independent, and over windows that lie completely inside. Y is `luma_studio_range`. ValueError for other
    shapes or types, or below 11 px inside the border.
    """
    check_images(outputs, targets, border)
    inside = slice(border, -border or None)
    outputs, targets = outputs[:, :, inside, inside], targets[:, :, inside, inside]
    sums = (_sums_in_threads if outputs.device.type == "cpu" else _sums)(outputs, targets)
    height, width = outputs.shape[2:]
    num_windows = (height - _MARGIN_PX) * (width - _MARGIN_PX)
    counts = [3 * height * width, height * width, 3 * num_windows, num_windows]
    means = torch.stack([sums[:, column] / count for column, count in enumerate(counts)], 1)
    psnrs = 10 * torch.log10(_RANGE**2 / means[:, :2])
    return torch.cat([psnrs, means[:, 2:]], 1)


def _sums_in_threads(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return `_sums`, by one thread per image: a block that fits a CPU's cache is too little work to divide."""
    num_threads = torch.get_num_threads()
    with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        sums = torch.cat(list(pool.map(_sums, torch.split(outputs, 1), torch.split(targets, 1))))
    torch.set_num_threads(num_threads)  # for threads started later; those of the pool changed this default
    return sums


def _sums(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return N x 4: squared errors in RGB and Y, summed over pixels, and similarities, summed over windows."""
    sums = torch.zeros(len(outputs), 4, dtype=torch.float64, device=outputs.device)
    height = outputs.shape[2] - _MARGIN_PX
    for top in range(0, height, _BLOCK_PX):
        num_rows = min(_BLOCK_PX, height - top)
        rows = slice(top, top + num_rows + _MARGIN_PX)
        planes = _planes(outputs[:, :, rows], targets[:, :, rows])
        # Neighbouring blocks share rows, whose errors count once.
        errors = planes[: num_rows if top + num_rows < height else None]
        means = _window_means(planes)
        sum_luma, difference_luma = _luma(means).unbind(2)
        sums[:, 0] += errors[:, :, 9:12].sum((0, 2, 3))
        sums[:, 1] += errors[:, :, 13].sum((0, 2))
        sums[:, 2] += _similarities(*torch.split(means[:, :, :12], 3, 2)).sum((0, 2, 3))
        sums[:, 3] += _similarities(sum_luma, difference_luma, means[:, :, 12], means[:, :, 13]).sum((0, 2))
    return sums


def _planes(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return H x N x 14 x W float64: s (RGB), d (RGB), s² (RGB), d² (RGB), s² (Y) and d² (Y).

    s and d are the sum and the difference of both images. Their moments give SSIM with less work than those of the
    images, and the means in Y follow from those in RGB.
    """
    x, y = (images.permute(2, 0, 1, 3).to(torch.float64) for images in (outputs, targets))
    height, num_images, _, width = x.shape
    planes = torch.empty(height, num_images, 14, width, dtype=torch.float64, device=x.device)
    torch.add(x, y, out=planes[:, :, 0:3])
    torch.sub(x, y, out=planes[:, :, 3:6])
    torch.mul(planes[:, :, :6], planes[:, :, :6], out=planes[:, :, 6:12])
    luma = _luma(planes)
    torch.mul(luma, luma, out=planes[:, :, 12:14])
    return planes


def _luma(planes: Tensor) -> Tensor:
    """Return H x N x 2 x W: s and d in Y, from the first six planes."""
    red, green, blue = (planes[:, :, colour:6:3] for colour in range(3))
    weights = [weight / _RANGE for weight in STUDIO_WEIGHTS]
    luma: Tensor = (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2])
    luma[:, :, 0] += 2 * STUDIO_BLACK
    return luma


def _similarities(sums: Tensor, differences: Tensor, square_sums: Tensor, square_differences: Tensor) -> Tensor:
    """Return SSIM per window from the means of s, d, s² and d², which are modified.

    With x = (s + d) / 2 and y = (s - d) / 2, 4 xy = s² - d² and 2 (x² + y²) = s² + d².
    """
    sums *= sums
    sums += 2 * _C1
    differences *= differences
    luminance = sums - differences
    luminance_bound = sums.add_(differences)
    structure = square_sums - square_differences
    structure -= luminance
    structure += 2 * (_C1 + _C2)
    structure_bound = square_sums.add_(square_differences)
    structure_bound -= luminance_bound
    structure_bound += 2 * (_C1 + _C2)
    return luminance.mul_(structure).div_(luminance_bound.mul_(structure_bound))


def _window_means(planes: Tensor) -> Tensor:
    """Return the Gaussian-weighted means of all complete windows: 10 px smaller in both directions.

    Products with a band matrix, block by block, are as fast on a CPU as OpenCV's filter, and suit GPUs.
    """
    height, width = planes.shape[0] - _MARGIN_PX, planes.shape[3] - _MARGIN_PX
    band = _band_matrix(planes.device)
    columns = (band[: height + _MARGIN_PX, :height].T @ planes.flatten(1)).view(-1, planes.shape[3])
    means = torch.empty(len(columns), width, dtype=planes.dtype, device=planes.device)
    for left in range(0, width, _BLOCK_PX):
        right = min(left + _BLOCK_PX, width)
        part = columns[:, left : right + _MARGIN_PX]
        torch.mm(part, band[: part.shape[1], : right - left], out=means[:, left:right])
    return means.view(height, *planes.shape[1:3], width)


@lru_cache(maxsize=8)
def _band_matrix(device: torch.device) -> Tensor:
    """Return the matrix whose column i has the window's weights from row i on. Nothing is copied to the device."""
    half = SSIM_WINDOW_PX // 2
    weights = [math.exp(-((tap - half) ** 2) / (2 * _SSIM_SIGMA_PX**2)) for tap in range(SSIM_WINDOW_PX)]
    with torch.inference_mode(False):  # an inference tensor could not be used elsewhere
        matrix = torch.zeros(_BLOCK_PX + _MARGIN_PX, _BLOCK_PX, dtype=torch.float64, device=device)
        for tap, weight in enumerate(weights):
            matrix.diagonal(-tap).fill_(weight / math.fsum(weights))
    return matrix


def check_images(outputs: Tensor, targets: Tensor, border: int) -> None:
    """Raise ValueError for images that `measure` does not take."""
    for images in (outputs, targets):
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected N x 3 x H x W uint8, got {tuple(images.shape)} {images.dtype}")
    if outputs.shape != targets.shape:
        raise ValueError(f"expected images of equal shape, got {tuple(outputs.shape)} and {tuple(targets.shape)}")
    height, width = outputs.shape[2:]
    if border < 0 or min(height, width) - 2 * border < SSIM_WINDOW_PX:
        size = f"{width} x {height} px"
        raise ValueError(f"expected at least {SSIM_WINDOW_PX} px inside a border of {border} px, got {size}")


def mean_quality(qualities: Sequence[Quality]) -> Quality:
    """Return the mean of each metric over the images, as `mean_scores` does. ValueError if there are no images."""
    if not qualities:
        raise ValueError("expected at least one image")
    return Quality(**mean_scores(OWN, score_sums(list(map(astuple, qualities)), len(OWN))))
