"""Sharpening of HR for the losses, as Real-ESRGAN does it."""

import torch
from torch import Tensor, nn

from trainer.losses.image_loss import gaussian

_RADIUS = 25  # px on either side of the centre: a kernel of 51 px, as Real-ESRGAN's "radius" of 50 gives
_SIGMA = 8.0  # px; OpenCV's default for that kernel: 0.3 ((51 - 1) / 2 - 1) + 0.8
_WEIGHT = 0.5  # of the difference that is added
_THRESHOLD = 10 / 255  # of the difference above which a pixel is sharpened

MIN_PX = _RADIUS + 1  # the smallest image of which a border of _RADIUS px can be reflected


class Sharpen(nn.Module):
    """Unsharp masking of square images with a soft mask (USMSharp of Real-ESRGAN, Wang et al. 2021).

    Adds half of (image - blurred image) where that difference exceeds 10 of 255 levels. The mask of these pixels is
    blurred by the same Gaussian. Images are reflected at their borders, without repeating the outermost pixels.
    Real-ESRGAN sharpens the patches of its second stage likewise, but in its first stage crops of 400 px, from which it
    then cuts the patches.
    """

    _rows: Tensor
    _columns: Tensor

    def __init__(self, size: int) -> None:
        """`size` is the edge of the images in px, MIN_PX or more."""
        super().__init__()
        blur = _blur(size)
        self.register_buffer("_rows", blur)
        self.register_buffer("_columns", blur.T.contiguous())

    def forward(self, images: Tensor) -> Tensor:
        """Return sharpened images: N x 3 x size x size float32 in [0, 1], as the argument, and in its memory format."""
        difference = images - self._blurred(images)
        mask = self._blurred((difference.abs() > _THRESHOLD).to(images.dtype))
        sharp = (images + _WEIGHT * difference).clamp(0, 1)
        return torch.lerp(images, sharp, mask)

    def _blurred(self, images: Tensor) -> Tensor:
        # The two passes of the separable convolution as products with a matrix: on CPUs, faster than convolutions with
        # kernels of 51 px, and on GPUs in full precision, where convolutions may use TF32.
        return self._rows @ images @ self._columns


def _blur(size: int) -> Tensor:
    """Return the size x size matrix that blurs a column of pixels, including the reflection at both ends."""
    offsets = torch.arange(-_RADIUS, _RADIUS + 1)
    kernel = gaussian(len(offsets), _SIGMA)
    last = size - 1
    sources = last - (last - (torch.arange(size)[:, None] + offsets).abs()).abs()
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, sources, kernel.expand(size, -1))
    return matrix.float()
