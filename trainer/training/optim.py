"""How weights change: the learning rate over the steps, the optimiser, and the EMA of the weights."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainer.models import Network

_FINAL_SHARE = 0.01  # of the peak learning rate, at the last step


def learning_rate(step: int, total: int, peak: float, warmup: int) -> float:
    """The rate of step 0 .. total-1: up in a straight line for `warmup` steps, then down along half a cosine."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, total - 1 - warmup)
    return peak * (_FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * min(1.0, share))) / 2)


def make_optimizer(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.AdamW:
    """AdamW without weight decay. The second moment forgets faster than usual, as the field does it (beta2 0.99).

    Fused: one kernel for all parameters, instead of a dozen for each, or for each group of them.
    """
    return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)


def restore_optimizer(optimizer: torch.optim.AdamW, state: dict[str, Any]) -> None:
    """Go on where an equal optimiser was. ValueError when it was another.

    The moments are laid out in memory as their parameters: the fused kernels go by addresses, and would pair values of
    different places or write beyond a tensor. Rates and the like are not taken over: they are those of
    `make_optimizer`.
    """
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    saved = state["state"]
    if saved and saved.keys() != set(range(len(parameters))):  # there is nothing before the first step
        raise ValueError(f"state of {len(saved)} parameters instead of {len(parameters)}")
    laid_out: dict[int, dict[str, torch.Tensor]] = {}
    for number, values in saved.items():
        parameter, shape = parameters[number], parameters[number].shape
        if {name: value.shape for name, value in values.items()} != {
            "step": torch.Size(()),
            "exp_avg": shape,
            "exp_avg_sq": shape,
        }:
            raise ValueError(f"the state of parameter {number} does not fit {shape}")
        moments = {name: torch.empty_like(parameter).copy_(values[name]) for name in ("exp_avg", "exp_avg_sq")}
        laid_out[number] = {"step": values["step"], **moments}
    optimizer.load_state_dict({"state": laid_out, "param_groups": groups})


class Ema:
    """The exponential moving average of a network's weights, in a network of its own.

    The decay rises as (1 + n) / (10 + n) up to `decay`, so that a short run is not an average with its beginning.
    """

    def __init__(self, ema_network: Network, decay: float) -> None:
        self.network = ema_network.eval().requires_grad_(False)
        self._decay = decay
        self._parameters: list[torch.Tensor] = list(ema_network.parameters())

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards `network` after step 0, 1, ..."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._parameters, [p.detach() for p in network.parameters()], 1 - decay)
