"""The loss of a batch: conversion of the images, forward pass and objective, compiled or not."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from trainer.training.device import Precision
from trainer.training.objective import Images, Objective
from trainer.training.sharpen import Sharpen

# Of uint8 HR and input, and the numbers of the active losses: their sum, the vector of their values, and the images.
LossFunction: TypeAlias = Callable[[Tensor, Tensor, tuple[int, ...]], tuple[Tensor, Tensor, Images]]


def loss_function(
    network: nn.Module,
    ema_network: nn.Module | None,
    objective: Objective,
    precision: Precision,
    sharpen: Sharpen | None = None,
    compiles: bool = False,
    is_ddp: bool = False,
) -> LossFunction:
    """Return the loss of a batch as a function, compiled if `compiles`.

    `network` is a DDP wrapper if `is_ddp`. All losses but the adversarial one compare with HR sharpened by `sharpen`.
    """
    dtype = precision.dtype
    # Compile only the DDP wrapper: PyTorch then splits the graph to overlap gradient reduction.
    forward: Callable[[Tensor], Tensor] = torch.compile(network) if compiles and is_ddp else network

    def loss(hr_bytes: Tensor, network_input: Tensor, active: tuple[int, ...]) -> tuple[Tensor, Tensor, Images]:
        hr, ema_output = to_unit_range(hr_bytes), None
        target = hr if sharpen is None else sharpen(hr)
        # Without autocast's cache of converted weights: each weight is used once, and a CUDA graph cannot use it.
        with torch.autocast(hr.device.type, dtype, enabled=dtype is not None, cache_enabled=False):
            images = to_unit_range(network_input)
            output = forward(images)
            if ema_network is not None and objective.uses_ema(active):
                with torch.no_grad():
                    ema_output = ema_network(images)
            result = Images(output, target, hr, ema_output)
            return *objective(active, result), result  # with features of VGG19 in this precision, too

    if not compiles or is_ddp:
        return loss
    limits = torch._dynamo.config  # of graphs of one function, by default 8; here, each set of active losses has one
    limits.recompile_limit = max(limits.recompile_limit, objective.max_sets)
    return torch.compile(loss, fullgraph=True, dynamic=False)


def to_unit_range(images: Tensor) -> Tensor:
    """Convert N x H x W x 3 uint8 to N x 3 x H x W float32 in [0, 1], in channels_last layout."""
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255)
