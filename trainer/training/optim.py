"""Learning rate schedule, optimiser and the EMA of the weights."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainer.models import Network

_FINAL_FRACTION = 0.01  # of the peak learning rate, at the last step


def learning_rate(step: int, total: int, peak: float, warmup: int) -> float:
    """Return the rate of step 0 .. total-1: linear warmup for `warmup` steps, then cosine decay to 1% of `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - 1 - warmup)
    return peak * (_FINAL_FRACTION + (1 - _FINAL_FRACTION) * (1 + math.cos(math.pi * min(1.0, progress))) / 2)


def make_optimizer(
    parameters: Iterable[nn.Parameter], lr: float | torch.Tensor, capturable: bool = False
) -> torch.optim.AdamW:
    """Return AdamW without weight decay and with beta2 = 0.99, as is usual in super-resolution.

    The fused implementation runs one kernel for all parameters instead of a dozen per parameter or group. In a CUDA
    graph, only a rate that is a tensor on the device can be changed.
    """
    return torch.optim.AdamW(parameters, lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True, capturable=capturable)


def set_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    """Set the learning rate for the next step; without synchronising if it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def restore_optimizer(optimizer: torch.optim.AdamW, state: dict[str, Any]) -> None:
    """Load the state of an optimiser over the same parameters. ValueError if they differ.

    The moments are copied into the memory layout of their parameters: the fused kernels index raw memory, and would
    otherwise mismatch elements or write out of bounds. Hyperparameters are not loaded; they remain those of
    `make_optimizer`.
    """
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    saved = state["state"]
    if saved and saved.keys() != set(range(len(parameters))):  # the state is empty before the first step
        raise ValueError(f"expected the state of {len(parameters)} parameters, got {len(saved)}")
    laid_out: dict[int, dict[str, torch.Tensor]] = {}
    for number, values in saved.items():
        parameter, shape = parameters[number], parameters[number].shape
        if {name: value.shape for name, value in values.items()} != {
            "step": torch.Size(()),
            "exp_avg": shape,
            "exp_avg_sq": shape,
        }:
            raise ValueError(f"the state of parameter {number} does not have shape {shape}")
        moments = {name: torch.empty_like(parameter).copy_(values[name]) for name in ("exp_avg", "exp_avg_sq")}
        laid_out[number] = {"step": values["step"], **moments}
    optimizer.load_state_dict({"state": laid_out, "param_groups": groups})


class Ema:
    """Exponential moving average of a network's weights, held in a separate network.

    The decay after step n is min(`decay`, (1 + n) / (10 + n)), so that short runs do not average in their initial
    weights. `captured` keeps the decay in a tensor, which may change between replays of a CUDA graph.
    """

    def __init__(self, ema_network: Network, decay: float, captured: bool = False) -> None:
        self.network = ema_network.eval().requires_grad_(False)
        self._decay = decay
        self._parameters: list[torch.Tensor] = list(ema_network.parameters())
        self._weight: float | torch.Tensor = torch.zeros((), device=self._parameters[0].device) if captured else 0.0

    def set_step(self, step: int) -> None:
        """Set the decay for the update after step `step`, counted from 0."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        if isinstance(self._weight, torch.Tensor):
            self._weight.fill_(weight)
        else:
            self._weight = weight

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Update the average with the network's weights."""
        weights = [parameter.detach() for parameter in network.parameters()]
        if isinstance(self._weight, torch.Tensor):  # there is no _foreach_lerp_ with one weight in a tensor
            changes = torch._foreach_sub(weights, self._parameters)
            torch._foreach_mul_(changes, self._weight)
            torch._foreach_add_(self._parameters, changes)
        else:
            torch._foreach_lerp_(self._parameters, weights, self._weight)
