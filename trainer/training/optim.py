"""Optimiser and the EMA of the weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

from trainer.models import Network

BETAS = (0.9, 0.99)
_EPSILON = 1e-8
_STATE = ("step", "exp_avg", "exp_avg_sq")  # of a parameter, in the optimiser's state


class AdamW:
    """AdamW without weight decay, with beta2 = 0.99, as is usual in super-resolution, by fused kernels.

    One of PyTorch's fused kernels updates all parameters. States have the format of torch.optim.AdamW, which itself
    would import PyTorch's compiler, for more than a second of every start. `captured` keeps the learning rate in a
    tensor on the device, which may change between replays of a CUDA graph.

    torch.amp.GradScaler reads `param_groups`, and sets `grad_scale` and `found_inf` during `step`.
    """

    _step_supports_amp_scaling = True  # for GradScaler, which would otherwise wait for the device

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, captured: bool = False) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        device = self._parameters[0].device
        self._rate: float | torch.Tensor = torch.tensor(lr, device=device) if captured else lr
        self._is_captured = captured
        self._moments = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = [torch.zeros((), device=device) for _ in self._parameters]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": self._parameters}]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate for the next step, without synchronising."""
        if isinstance(self._rate, torch.Tensor):
            self._rate.fill_(rate)
        else:
            self._rate = rate

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters by their gradients. One without a gradient stays as it is, with its state."""
        states = zip(self._parameters, self._moments, self._squares, self._steps, strict=True)
        updated = [(state[0], state[0].grad, *state[1:]) for state in states if state[0].grad is not None]
        if not updated:
            return
        parameters, gradients, moments, squares, steps = map(list, zip(*updated, strict=True))
        adamw(
            parameters,
            gradients,
            moments,
            squares,
            [],
            steps,
            fused=True,
            capturable=self._is_captured,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self._rate,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )

    def zero_grad(self) -> None:
        """Remove the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return moments and step counts of every parameter, by number."""
        values = zip(self._steps, self._moments, self._squares, strict=True)
        states = (dict(zip(_STATE, value, strict=True)) for value in values)
        group = {"lr": self._rate, "betas": BETAS, "eps": _EPSILON, "weight_decay": 0.0, "fused": True}
        return {
            "state": dict(enumerate(states)),
            "param_groups": [{**group, "params": list(range(len(self._parameters)))}],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of an optimiser over the same parameters. ValueError if they differ.

        The moments keep the memory layout of their parameters: the fused kernels index raw memory, and would otherwise
        mismatch elements or write out of bounds. Hyperparameters are not loaded.
        """
        saved = state["state"]
        if not saved:  # of an earlier version, before the first step
            return
        if saved.keys() != set(range(len(self._parameters))):
            raise ValueError(f"expected the state of {len(self._parameters)} parameters, got {len(saved)}")
        for number, parameter in enumerate(self._parameters):
            shapes = (torch.Size(()), parameter.shape, parameter.shape)
            if {name: value.shape for name, value in saved[number].items()} != dict(zip(_STATE, shapes, strict=True)):
                raise ValueError(f"the state of parameter {number} does not have shape {parameter.shape}")
            for name, tensors in zip(_STATE, (self._steps, self._moments, self._squares), strict=True):
                tensors[number].copy_(saved[number][name])


class Ema:
    """Exponential moving average of a network's weights, held in a separate network.

    Buffers, such as the statistics of batch normalisation, are not averaged but those of the network.

    The decay after step n is min(`decay`, (1 + n) / (10 + n)), so that short runs do not average in their initial
    weights. `captured` keeps the decay in a tensor, which may change between replays of a CUDA graph.
    """

    def __init__(self, ema_network: Network, decay: float, captured: bool = False) -> None:
        self._parameters: list[torch.Tensor] = [
            parameter for parameter in ema_network.parameters() if parameter.requires_grad
        ]
        self.network = ema_network.eval().requires_grad_(False)
        self._buffers = list(ema_network.buffers())
        self._decay = decay
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
        self._average([parameter.detach() for parameter in network.parameters() if parameter.requires_grad])
        if self._buffers:
            torch._foreach_copy_(self._buffers, list(network.buffers()))

    def _average(self, weights: list[torch.Tensor]) -> None:
        if isinstance(self._weight, torch.Tensor):  # there is no _foreach_lerp_ with one weight in a tensor
            changes = torch._foreach_sub(weights, self._parameters)
            torch._foreach_mul_(changes, self._weight)
            torch._foreach_add_(self._parameters, changes)
        else:
            torch._foreach_lerp_(self._parameters, weights, self._weight)
