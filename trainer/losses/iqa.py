"""LPIPS and DISTS as losses."""

from torch import Tensor, nn

from trainer.losses.image_loss import mean


class ImageQuality(nn.Module):
    """The mean over images of a metric, 0 for equal images, by pyiqa's network for it.

    In float32: DISTS subtracts nearly equal numbers, which half precision rounds to the same.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network.requires_grad_(False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return mean(self._network(output, target))
