"""What training makes small: the distance between the network's output and HR, a mean over all elements."""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

_CHARBONNIER_EPSILON = 1e-3  # in units of the pixels, which are 0 to 1


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean of |output - target|: a float32 scalar, whatever the dtypes; tensors of one shape."""
    return _difference(output, target).abs().mean()


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Mean of sqrt(d² + 1e-6), d = output - target (Lai et al., LapSRN, 2017): L1 that is smooth at zero. As `l1`."""
    difference = _difference(output, target)
    return (difference * difference + _CHARBONNIER_EPSILON**2).sqrt().mean()


def _difference(output: Tensor, target: Tensor) -> Tensor:
    """output - target in float32: 1e-6 is nothing to half precision, and a mean of a million halves is not one."""
    if output.shape != target.shape:  # broadcasting would train on nonsense
        raise ValueError(f"expected tensors of one shape, got {tuple(output.shape)} and {tuple(target.shape)}")
    with torch.autocast(output.device.type, enabled=False):
        return output.float() - target.float()


LOSSES: dict[str, Loss] = {"l1": l1, "charbonnier": charbonnier}
