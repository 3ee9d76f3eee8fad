"""Training losses: distances between the network's output and HR, averaged over all elements."""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

_CHARBONNIER_EPSILON = 1e-3  # for pixels in [0, 1]


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean of |output - target| as a float32 scalar, for tensors of equal shape and any dtype."""
    return _mean(_difference(output, target).abs())


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt(d² + 1e-6), d = output - target (Lai et al., LapSRN, 2017): L1 made smooth at zero."""
    difference = _difference(output, target)
    return _mean((difference * difference + _CHARBONNIER_EPSILON**2).sqrt())


def _mean(values: Tensor) -> Tensor:
    """Return the mean. The gradient of `Tensor.mean` would be a tensor of equal numbers, in another memory layout."""
    return values.sum() / values.numel()


def _difference(output: Tensor, target: Tensor) -> Tensor:
    """Return output - target in float32: half precision cannot represent 1e-6 or average a million values."""
    if output.shape != target.shape:  # broadcasting would silently train on wrong pixels
        raise ValueError(f"expected tensors of equal shape, got {tuple(output.shape)} and {tuple(target.shape)}")
    with torch.autocast(output.device.type, enabled=False):
        return output.float() - target.float()


LOSSES: dict[str, Loss] = {"l1": l1, "charbonnier": charbonnier}
