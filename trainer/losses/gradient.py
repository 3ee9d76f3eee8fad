"""Differences of the gradients of output and target."""

import torch
from torch import Tensor, nn

from trainer.losses.image_loss import depthwise, mean


class Gradient(nn.Module):
    """The mean of |∂x d| and |∂y d|, d = output - target, by the Sobel operator: kernels of 3 x 3 px completely inside.

    In units of [0, 1] per px: the kernels are divided by 8. Components, unlike magnitudes, have a direction, and a
    gradient where they are zero.
    """

    _kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        sobel = torch.outer(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])) / 8
        self.register_buffer("_kernels", torch.stack([sobel, sobel.T]).unsqueeze(1).repeat(3, 1, 1, 1))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return mean(depthwise(output - target, self._kernels).abs())
