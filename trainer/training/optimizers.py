"""The choice of the optimiser: AdamW, or one of the package pytorch_optimizer (extra `optimizers`)."""

import importlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import nn

from srshards.errors import UsageError
from srshards.extras import install_command
from trainer.models import Network
from trainer.training.optim import BETAS, AdamW, Ema

# Default peak rate, as a multiple of the network's, which is AdamW's. Adan: 5 to 10, by its authors (README of
# sail-sg/Adan). Schedule-free AdamW: 1 to 10, by its authors (README of facebookresearch/schedule_free). Muon: 1, as
# its updates are scaled to the size of AdamW's (Liu et al., Muon is Scalable for LLM Training, 2025).
RATES = {"adamw": 1.0, "adan": 5.0, "schedulefree": 1.0, "muon": 1.0}

_PACKAGE = "pytorch_optimizer"
# What the package keeps outside of tensors and changes in a step.
_COUNTERS = ("step", "weight_sum", "lr_max")
_ADAM_STATE = ("exp_avg", "exp_avg_sq")


class Optimizer(Protocol):
    """What the training step needs of an optimiser. `state_dict` has tensors, numbers, dicts and lists only."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    def set_rate(self, rate: float) -> None: ...

    def step(self) -> None: ...

    def zero_grad(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def make_optimizer(name: str, network: nn.Module, lr: float, captured: bool) -> Optimizer:
    """Return the optimiser of the network's trainable parameters; `name` is a key of RATES. None has weight decay.

    UsageError without the package that it needs.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if name == "adamw":
        return AdamW(parameters, lr, captured)
    package = load_package(name)
    if name == "adan":
        states = (*_ADAM_STATE, "exp_avg_diff", "previous_grad")
        return _PackageOptimizer(package.Adan(parameters, lr=lr), [states])
    if name == "schedulefree":
        return _ScheduleFree(package.ScheduleFreeAdamW(parameters, lr=lr, betas=BETAS), [("z", "exp_avg_sq")])
    matrices = _hidden_weights(network)
    numbers = {id(matrix) for matrix in matrices}
    others = [parameter for parameter in parameters if id(parameter) not in numbers]
    groups = [
        {"params": matrices, "lr": lr, "use_muon": True, "use_adjusted_lr": True},
        {"params": others, "lr": lr, "use_muon": False, "betas": BETAS, "eps": 1e-8},
    ]
    return _PackageOptimizer(_muon_class(package)(groups), [("momentum_buffer",), _ADAM_STATE])


def make_average(optimizer: Optimizer, ema_network: Network, decay: float, captured: bool) -> Ema:
    """Return the average of the weights that is validated: that of a schedule-free optimiser, or else an EMA."""
    if isinstance(optimizer, _ScheduleFree):
        return _ScheduleFreeAverage(ema_network, optimizer)
    return Ema(ema_network, decay, captured)


def load_package(optimizer: str) -> Any:
    """Return the package of all optimisers but AdamW. UsageError, which names the optimiser, if it is not installed."""
    try:
        return importlib.import_module(_PACKAGE)
    except ModuleNotFoundError as error:
        raise UsageError(f"--optimizer {optimizer} needs {_PACKAGE}; {install_command(_PACKAGE)}") from error


def _muon_class(package: Any) -> Any:
    """Return the package's Muon with Newton-Schulz iterations in float32.

    Its own are in bfloat16, which turns rounding errors of gradients, such as those from another number of processes,
    into changes of several percent of an update.
    """
    newton_schulz = importlib.import_module(f"{_PACKAGE}.optimizer.utils.matrix").zero_power_via_newton_schulz_5

    class Muon(package.Muon):  # type: ignore[misc]
        @staticmethod
        def _orthogonalize(group: Any, updates: list[torch.Tensor]) -> list[torch.Tensor]:
            """Orthogonalise the updates of weights whose matrices have the same shape, or its transpose."""
            matrices = [update.flatten(1) for update in updates]
            is_tall = [len(matrix) > matrix.size(1) for matrix in matrices]
            wide = torch.stack([matrix.mT if tall else matrix for matrix, tall in zip(matrices, is_tall, strict=True)])
            results = newton_schulz(wide, weights=group["ns_coeffs"], dtype=torch.float32)
            return [result.mT if tall else result for result, tall in zip(results, is_tall, strict=True)]

    return Muon


def _hidden_weights(network: nn.Module) -> list[torch.Tensor]:
    """Return the weights that Muon updates: of linear layers and convolutions, without the first and the last layer.

    The others are for AdamW, as its author recommends (Jordan, 2024). Those of depthwise convolutions are filters, not
    matrices.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return [
        layer.weight
        for layer in layers[1:-1]
        if layer.weight.requires_grad and (isinstance(layer, nn.Linear) or layer.groups == 1)
    ]


class _PackageOptimizer:
    """An optimiser of the package. `states` are the names of a parameter's tensors, for each group of parameters.

    Step counts are Python numbers, which a CUDA graph would not update. In float16, GradScaler waits for the device in
    each step, to skip those with gradients that are not finite.
    """

    def __init__(self, optimizer: Any, states: list[tuple[str, ...]]) -> None:
        self._optimizer = optimizer
        self._states = states

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups  # type: ignore[no-any-return]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate for the next step."""
        for group in self.param_groups:
            group["lr"] = rate

    def step(self) -> None:
        """Update the parameters by their gradients."""
        self._optimizer.step()

    def zero_grad(self) -> None:
        """Remove the gradients."""
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors of every parameter by number, and the counters of every group."""
        state = self._optimizer.state
        return {
            "state": {number: dict(state.get(parameter, {})) for number, (parameter, _) in enumerate(self._named())},
            "counters": [{name: group[name] for name in _COUNTERS if name in group} for group in self.param_groups],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of an optimiser over the same parameters. ValueError if they differ.

        Hyperparameters are not loaded. A parameter that never had a gradient has no tensors.
        """
        for group, counters in zip(self.param_groups, state["counters"], strict=True):
            if not counters.keys() <= set(_COUNTERS) or any(type(one) not in (int, float) for one in counters.values()):
                raise ValueError(f"invalid counters of the optimiser: {counters}")
            group.update(counters)
        for number, (parameter, names) in enumerate(self._named()):
            saved = state["state"][number]
            if saved and {name: one.shape for name, one in saved.items()} != dict.fromkeys(names, parameter.shape):
                raise ValueError(f"the state of parameter {number} is not {names} of shape {parameter.shape}")
            tensors = {name: torch.empty_like(parameter).copy_(one) for name, one in saved.items()}
            self._optimizer.state[parameter] = tensors

    def _named(self) -> Iterator[tuple[nn.Parameter, tuple[str, ...]]]:
        """Yield all parameters, each with the names of its tensors."""
        for group, names in zip(self.param_groups, self._states, strict=True):
            for parameter in group["params"]:
                yield parameter, names


class _ScheduleFree(_PackageOptimizer):
    """Schedule-free AdamW (Defazio et al., The Road Less Scheduled, 2024).

    The parameters are y, the point of the gradients; y = (1 - beta1) z + beta1 x. The state has z, the sequence of
    AdamW without momentum. x is the average of z, weighted by the square of the largest rate so far.
    """

    def sequences(self) -> tuple[list[torch.Tensor], float]:
        """Return z of every parameter, and beta1."""
        (group,) = self.param_groups
        state = self._optimizer.state
        return [state.get(one, {}).get("z", one.detach()) for one in group["params"]], group["betas"][0]


class _ScheduleFreeAverage(Ema):
    """The average x of a schedule-free optimiser, in place of an EMA."""

    def __init__(self, ema_network: Network, optimizer: _ScheduleFree) -> None:
        super().__init__(ema_network, decay=0.0)
        self._optimizer = optimizer

    def _average(self, weights: list[torch.Tensor]) -> None:
        z, beta = self._optimizer.sequences()
        torch._foreach_copy_(self._parameters, weights)
        torch._foreach_lerp_(self._parameters, z, 1 - 1 / beta)
