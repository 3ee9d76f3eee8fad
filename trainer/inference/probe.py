"""Call a network for a tiny image, to learn what a forward pass takes per pixel."""

import torch
from torch import nn

PROBE_PX = 8


@torch.inference_mode()
def run_probe(model: nn.Module) -> None:
    """Call the model, with its hooks, for one image of PROBE_PX x PROBE_PX px on its device.

    A pass on PyTorch's meta device would import its compiler, which takes a second.
    """
    parameter = next(model.parameters(), torch.zeros(()))
    model(parameter.new_zeros(1, 3, PROBE_PX, PROBE_PX))
