"""Losses of pixels: means of a function of output - target over all elements."""

from torch import Tensor

from trainer.losses.image_loss import check_shapes, full_precision, mean

_CHARBONNIER_EPSILON = 1e-3  # for pixels in [0, 1]


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean of |output - target| as a float32 scalar, for tensors of equal shape and any dtype."""
    return mean(_difference(output, target).abs())


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt(d² + 1e-6), d = output - target (Lai et al., LapSRN, 2017): L1 made smooth at zero."""
    difference = _difference(output, target)
    return mean((difference * difference + _CHARBONNIER_EPSILON**2).sqrt())


def _difference(output: Tensor, target: Tensor) -> Tensor:
    """Return output - target in float32: half precision cannot represent 1e-6 or average a million values."""
    check_shapes(output, target)
    return full_precision(output) - full_precision(target.detach())
