"""What all losses share: the check of their images, float32 arithmetic, means and filters."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.loss_table import LOSSES


class ImageLoss(nn.Module):
    """A loss of images: `loss(output, target)`, or `loss(output, target, ema_output)` where its row has `uses_ema`.

    Images are N x 3 x H x W RGB in [0, 1], which outputs may exceed, in any floating-point dtype. The result is a
    float32 scalar, computed in float32 even within autocast (both float64 for float64 images). Gradients flow to
    `output` only. ValueError for other shapes, unequal ones, and edges below the row's `min_px`.

    `compute` gets images for which all of this holds. With `in_autocast`, it gets them as they are, and decides about
    precision itself.
    """

    def __init__(self, name: str, compute: Callable[..., Tensor], in_autocast: bool = False) -> None:
        super().__init__()
        self.name = name
        self._compute = compute
        self._in_autocast = in_autocast

    def forward(self, output: Tensor, *references: Tensor) -> Tensor:
        for reference in references:
            check_shapes(output, reference)
        self._check_size(output.shape)
        images = (output, *(reference.detach() for reference in references))
        if self._in_autocast:
            return self._compute(*images)
        with torch.autocast(output.device.type, enabled=False):
            return self._compute(*map(full_precision, images))

    def _check_size(self, shape: torch.Size) -> None:
        if len(shape) != 4 or shape[1] != 3:
            raise ValueError(f"expected images of N x 3 x H x W, got {tuple(shape)}")
        height, width = shape[2:]
        min_px = LOSSES[self.name].min_px
        if min(height, width) < min_px:
            raise ValueError(f"{self.name} needs patches of at least {min_px} px, got {width} x {height} px")


def check_shapes(output: Tensor, reference: Tensor) -> None:
    """Raise ValueError for tensors of unequal shape: broadcasting would silently train on wrong pixels."""
    if output.shape != reference.shape:
        raise ValueError(f"expected tensors of equal shape, got {tuple(output.shape)} and {tuple(reference.shape)}")


def full_precision(values: Tensor) -> Tensor:
    """Return float64 as it is, all else in float32."""
    return values if values.dtype == torch.float64 else values.float()


def mean(values: Tensor) -> Tensor:
    """Return the mean. The gradient of `Tensor.mean` would be a tensor of equal numbers, in another memory layout."""
    return values.sum() / values.numel()


def gaussian(size: int, sigma: float) -> Tensor:
    """Return `size` weights of a Gaussian window, in float64. Their sum is 1."""
    positions = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-(positions**2) / (2 * sigma**2))
    return weights / weights.sum()


class WindowMean(nn.Module):
    """Weighted means in all complete windows of len(weights)² px: images become len(weights) - 1 px smaller."""

    columns: Tensor
    rows: Tensor

    def __init__(self, weights: Tensor, channels: int) -> None:
        super().__init__()
        for name, shape in (("columns", (1, 1, -1, 1)), ("rows", (1, 1, 1, -1))):
            self.register_buffer(name, weights.float().view(shape).repeat(channels, 1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return N x C x (H - size + 1) x (W - size + 1) for N x C x H x W."""
        return depthwise(depthwise(images, self.columns), self.rows)


def depthwise(images: Tensor, kernels: Tensor) -> Tensor:
    """Return the correlation of each channel with its kernels (C·k x 1 x height x width), without padding."""
    # On a CPU, channels_last is faster. On a GPU, cuDNN would take it and round to TF32, too coarse for the variance of
    # flat areas. For contiguous images, PyTorch has a kernel of its own, in float32.
    layout = torch.channels_last if images.device.type == "cpu" else torch.contiguous_format
    return functional.conv2d(images.contiguous(memory_format=layout), kernels, groups=images.shape[1])
