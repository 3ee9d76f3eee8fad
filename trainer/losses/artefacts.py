"""Penalty for artefacts, by comparison with the output of the EMA network."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.losses.image_loss import WindowMean, mean

_WINDOW_PX = 7
_EPSILON = 1e-12  # far below any variance of pixels that differ: the root has no finite slope at zero


class LDL(nn.Module):
    """The mean of m |output - target| (Liang, Zeng, Zhang: Details or Artifacts, 2022), m the map of artefacts.

    With the residual r = Σ |target - output| over the channels, m is the variance of r in the image to the power of 1/5
    times its variance in 7 x 7 px (both unbiased; the image is mirrored at its edges), and 0 where r is smaller than
    the residual of the EMA network: there, differences are details. As in the authors' code, gradients also flow
    through m.
    """

    def __init__(self) -> None:
        super().__init__()
        self._window_mean = WindowMean(torch.full((_WINDOW_PX,), 1 / _WINDOW_PX), 2)

    def forward(self, output: Tensor, target: Tensor, ema_output: Tensor) -> Tensor:
        difference = (output - target).abs()
        residual = difference.sum(1, keepdim=True)
        ema_residual = (ema_output - target).abs().sum(1, keepdim=True)
        in_image = (residual.var((1, 2, 3), keepdim=True) + _EPSILON) ** (1 / 5)
        artefacts = torch.where(residual < ema_residual, 0, in_image * self._local_variance(residual))
        return mean(artefacts * difference)

    def _local_variance(self, values: Tensor) -> Tensor:
        """Return the unbiased variance in the window around each pixel, for N x 1 x H x W."""
        edge = _WINDOW_PX // 2
        padded = functional.pad(values, (edge, edge, edge, edge), mode="reflect")
        means, mean_squares = self._window_mean(torch.cat([padded, padded * padded], 1)).split(1, 1)
        count = _WINDOW_PX**2
        population: Tensor = mean_squares - means * means
        return population.clamp(min=0) * (count / (count - 1))
