"""Brightness and colour without detail: luma and chroma in Gaussian windows, by ITU-R BT.709 as in sRGB.

Luma and chroma are linear in R'G'B' (gamma-encoded, as in image files), so that the losses have no singularities.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.losses.image_loss import WindowMean, gaussian, mean

_RED, _GREEN, _BLUE = 0.2126, 0.7152, 0.0722
LUMA = ((_RED, _GREEN, _BLUE),)  # Y'
CHROMA = (
    (-_RED / 1.8556, -_GREEN / 1.8556, 0.5),  # Pb = (B' - Y') / 1.8556
    (0.5, -_GREEN / 1.5748, -_BLUE / 1.5748),  # Pr = (R' - Y') / 1.5748
)
_WINDOW_PX, _SIGMA_PX = 21, 3


class Blurred(nn.Module):
    """The mean of |G * (x - y)| over `sums`: x and y are sums of the channels of output and target with these weights.

    G * is the mean in Gaussian windows of 21 x 21 px, sigma 3 px, that lie completely inside the image.
    """

    _sums: Tensor

    def __init__(self, sums: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.register_buffer("_sums", torch.tensor(sums))
        self._blur = WindowMean(gaussian(_WINDOW_PX, _SIGMA_PX), 3)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return mean(torch.einsum("nchw,sc->nshw", self._blur(output - target), self._sums).abs())
