"""Structural similarity at several scales."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.losses.image_loss import WindowMean, gaussian, mean
from trainer.metrics_table import SSIM_WINDOW_PX

_SIGMA_PX = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SMALLEST = 1e-3


class MSSSIM(nn.Module):
    """1 - MS-SSIM (Wang, Simoncelli, Bovik, 2003), the mean over images and channels, which are independent.

    MS-SSIM is the product over five scales, each half the size of the one before (means of 2 x 2 px), of the mean of cs
    to the power of the scale's exponent; at the last scale, of l·cs. In the windows of SSIM (Gaussian, 11 x 11 px,
    sigma 1.5 px), with means x and y, l = (2 x y + C1) / (x² + y² + C1) and cs = (2 cov + C2) / (var x + var y + C2).
    Means of cs below 0.001, which unlike structures have, count as 0.001: their power would have no finite slope.
    """

    def __init__(self) -> None:
        super().__init__()
        self._window_mean = WindowMean(gaussian(SSIM_WINDOW_PX, _SIGMA_PX), 3)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        # 1 is subtracted to make the sums small: the rounding of their variance grows with their squares.
        sums, differences = output + target - 1, output - target
        log_product = torch.zeros_like(sums[:, :, 0, 0])
        for scale, exponent in enumerate(_EXPONENTS):
            if scale:
                sums, differences = functional.avg_pool2d(sums, 2), functional.avg_pool2d(differences, 2)
            dissimilarity = self._dissimilarity(sums, differences, with_luminance=scale == len(_EXPONENTS) - 1)
            means = dissimilarity.sum((2, 3)) / dissimilarity[0, 0].numel()
            log_product = log_product + exponent * torch.log1p(-means.clamp(max=1 - _SMALLEST))
        return mean(-torch.expm1(log_product))

    def _dissimilarity(self, sums: Tensor, differences: Tensor, with_luminance: bool) -> Tensor:
        """Return 1 - cs or 1 - l·cs of all windows.

        For s = x + y and d = x - y, 4 xy = s² - d² and 2 (x² + y²) = s² + d². So 1 - cs follows from the variance of d
        and is as accurate as d. As a difference of nearly equal numbers it would be mostly rounding in flat areas.
        """
        sum_mean, difference_mean = self._window_mean(sums), self._window_mean(differences)
        squared_difference = difference_mean * difference_mean
        sum_variance = self._window_mean(sums * sums) - sum_mean * sum_mean
        difference_variance = self._window_mean(differences * differences) - squared_difference
        of_structure: Tensor = difference_variance / ((sum_variance + difference_variance) / 2 + _C2)
        if not with_luminance:
            return of_structure
        of_luminance: Tensor = squared_difference / (((sum_mean + 1) ** 2 + squared_difference) / 2 + _C1)
        return of_structure + of_luminance - of_structure * of_luminance
