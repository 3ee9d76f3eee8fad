"""JPEG compression of a batch on the device, with a quality per image, without entropy coding (which is lossless)."""

import math

import torch
from torch.nn import functional

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))  # all others are 99
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
_BLOCK = 8


class Jpeg:
    """Encodes and decodes batches with 4:2:0 chroma and the tables of the JPEG standard, annex K.

    As in Real-ESRGAN's training, the scaled tables are not rounded, chroma is enlarged by replication, and images are
    padded with black to a multiple of 16 px.
    """

    def __init__(self, device: torch.device) -> None:
        chroma = torch.full((_BLOCK, _BLOCK), 99.0)
        chroma[:4, :4] = torch.tensor(_CHROMA_CORNER)
        self._luma, self._chroma = (table.flatten().to(device) for table in (torch.tensor(_LUMA), chroma))
        self._to_ycc, self._to_rgb = (torch.tensor(matrix, device=device) for matrix in (_TO_YCC, _TO_RGB))
        self._dct = _dct_matrix().to(device)

    def __call__(self, images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
        """Return N x 3 x H x W float32 RGB in [0, 1] after compression; `quality` is N values from 1 to below 100."""
        height, width = images.shape[2:]
        padded = functional.pad(images, (0, -width % 16, 0, -height % 16))
        # Both tables scale by libjpeg's percentage, 5000 / quality below 50 and 200 - 2 quality from there.
        factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
        # The DCT expects values centred at 0, as those of chroma are: subtract 128 from luma.
        ycc = _mix(255 * padded, self._to_ycc)
        luma = self._quantise(ycc[:, :1] - 128, self._luma, factor)
        chroma = self._quantise(functional.avg_pool2d(ycc[:, 1:], 2), self._chroma, factor)
        decoded = torch.cat((luma + 128, functional.interpolate(chroma, scale_factor=2, mode="nearest")), dim=1)
        return _mix(decoded, self._to_rgb)[:, :, :height, :width].clamp(0, 255) / 255

    def _quantise(self, planes: torch.Tensor, table: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Return the planes (N x C x H x W) after their DCT coefficients have been rounded to multiples of the steps.

        One product with a 64 x 64 matrix per transform, because a GPU multiplies batches of 8 x 8 matrices slowly.
        """
        count, channels, height, width = planes.shape
        split = planes.reshape(count, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
        blocks = split.transpose(3, 4).reshape(count, -1, _BLOCK**2)
        steps = factor[:, None, None] * table
        coefficients = torch.round(blocks @ self._dct.T / steps) * steps
        decoded = (coefficients @ self._dct).reshape(count, channels, height // _BLOCK, width // _BLOCK, _BLOCK, _BLOCK)
        return decoded.transpose(3, 4).reshape(planes.shape)


def _mix(images: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Multiply the channels of every pixel by a 3 x 3 matrix."""
    return (matrix @ images.flatten(2)).reshape(images.shape)


def _dct_matrix() -> torch.Tensor:
    """Return the orthonormal 64 x 64 matrix of the 8 x 8 DCT-II; row 8u + v holds the weights of coefficient (u, v)."""
    frequency, position = torch.arange(_BLOCK)[:, None], torch.arange(_BLOCK)
    line = torch.cos((2 * position + 1) * frequency * (math.pi / (2 * _BLOCK))) / 2
    line[0] /= math.sqrt(2)
    return torch.kron(line, line)
