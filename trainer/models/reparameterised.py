"""Convolutions that are trained as a sum of several and applied as one: spandrel's `Conv3XC`, of SPAN.

In evaluation mode, spandrel computes the one convolution anew in every forward pass, in new memory. Here it is computed
when it is needed: when `eval` is called, and before the weights are saved. It stays in its memory, to which CUDA graphs
refer, and can be exported to ONNX.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def prepare(network: nn.Module) -> None:
    """Exclude the one convolution from training, and let a forward pass not compute it."""
    for module in _fused(network):
        module.eval_conv.requires_grad_(False)
        module.update_params = _do_nothing  # hides the method of the class


@torch.no_grad()
def fuse(network: nn.Module) -> None:
    """Compute the one convolution from those that are trained, in place, as spandrel does."""
    for module in _fused(network):
        parameters = (module.eval_conv.weight, module.eval_conv.bias)
        memory = [parameter.data for parameter in parameters]
        with torch.autocast(memory[0].device.type, enabled=False):
            type(module).update_params(module)
        for parameter, old in zip(parameters, memory, strict=True):
            parameter.data = old.copy_(parameter.data)
        module.weight_concat = module.bias_concat = None  # further references to the new tensors


def _fused(network: nn.Module) -> Iterator[Any]:
    return (module for module in network.modules() if hasattr(module, "eval_conv") and hasattr(module, "update_params"))


def _do_nothing() -> None:
    pass
