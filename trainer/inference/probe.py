"""Call a network for a small image, to learn what a forward pass takes per pixel."""

import math

import torch
from torch import nn

from trainer.models import Network
from trainer.models.spandrel_network import SpandrelSpec

_MIN_PROBE_PX = 8


def probe_px(model: nn.Module) -> int:
    """Return the edge in px of the image that `run_probe` uses, of a size that the network does not pad."""
    if not isinstance(model, Network):
        return _MIN_PROBE_PX
    grid = math.lcm(_MIN_PROBE_PX, model.spec.multiple_px)
    smallest = model.spec.needs.minimum_px if isinstance(model.spec, SpandrelSpec) else 1
    return -(-smallest // grid) * grid


@torch.inference_mode()
def run_probe(model: nn.Module) -> None:
    """Call the model, with its hooks, for one square image of `probe_px` on its device.

    A pass on PyTorch's meta device would import its compiler, which takes a second.
    """
    parameter = next(model.parameters(), torch.zeros(()))
    edge = probe_px(model)
    model(parameter.new_zeros(1, 3, edge, edge))
