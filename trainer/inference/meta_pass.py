"""Run a network's forward pass without computing anything, to learn what it needs."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

PROBE_PX = 64


def run_meta_pass(model: nn.Module, observer: AbstractContextManager[Any] | None = None) -> None:
    """Call the model and its hooks for one image of PROBE_PX x PROBE_PX px on PyTorch's meta device.

    The call, but not the creation of its parameters, is inside `observer`.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    dtype = next((tensor.dtype for tensor in tensors.values()), torch.float32)
    with torch.inference_mode(), observer or nullcontext():
        functional_call(model, empty, (torch.empty(1, 3, PROBE_PX, PROBE_PX, dtype=dtype, device="meta"),))
