"""The training step: forward, backward, optimiser and EMA update."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from srshards import PatchBatch
from trainer.models import Network
from trainer.training.device import Precision
from trainer.training.losses import Loss
from trainer.training.optim import Ema, learning_rate, make_optimizer, restore_optimizer


@dataclass(frozen=True)
class StepSettings:
    """Settings of the training step. `lr` is the peak; `clip` 0 disables clipping; `ema` 0 disables the EMA."""

    total_steps: int
    lr: float
    warmup: int
    loss: Loss
    precision: Precision
    micro_batches: int
    clip: float
    ema: float


class Learner:
    """A network with its optimiser, EMA and loss scaler.

    `forward` may be the compiled network or its DDP wrapper. For DDP, `no_sync` is its context manager without gradient
    reduction, used for all micro-batches of a step but the last.
    """

    def __init__(
        self,
        network: Network,
        ema_network: Network | None,
        settings: StepSettings,
        forward: Callable[[torch.Tensor], torch.Tensor],
        no_sync: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.network = network
        self.settings = settings
        self.device = next(network.parameters()).device
        self._forward = forward
        self._no_sync = no_sync
        self._optimizer = make_optimizer(network.parameters(), settings.lr)
        self._ema = Ema(ema_network, settings.ema) if ema_network is not None else None
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision.scales_loss)

    @property
    def evaluation_network(self) -> Network:
        """The network to validate: the EMA network if there is one, else the network itself."""
        return self._ema.network if self._ema else self.network

    def weights(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
        """Return the network's state dict, and that of its EMA if there is one."""
        return self.network.state_dict(), self._ema.network.state_dict() if self._ema else None

    def rate(self, step: int) -> float:
        return learning_rate(step, self.settings.total_steps, self.settings.lr, self.settings.warmup)

    def step(self, step: int, batches: Iterator[PatchBatch]) -> torch.Tensor:
        """Update the weights from the step's micro-batches. Return the mean loss as a scalar tensor on the device."""
        count = self.settings.micro_batches
        losses = []
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate(step)
        for number in range(count):
            batch = next(batches)
            with self._no_sync() if number < count - 1 else nullcontext():
                loss = self._loss(batch) / count
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if self.settings.clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self._ema:
            self._ema.update(self.network, step)
        return losses[0] if count == 1 else torch.stack(losses).sum()

    def _loss(self, batch: PatchBatch) -> torch.Tensor:
        precision = self.settings.precision
        target, network_input = to_unit_range(batch.hr), to_unit_range(batch.input)
        with torch.autocast(self.device.type, precision.dtype, enabled=precision.dtype is not None):
            output = self._forward(network_input)
        return self.settings.loss(output, target)

    def is_finite(self) -> bool:
        """Return whether all weights are finite. Synchronises with a GPU."""
        norms = torch._foreach_norm([parameter.detach() for parameter in self.network.parameters()])
        return bool(torch.stack(norms).isfinite().all())

    def state(self) -> dict[str, Any]:
        """Return everything that `restore` needs, as nested dicts of tensors and numbers."""
        params, params_ema = self.weights()
        return {
            "params": params,
            "params_ema": params_ema,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` returned. ValueError, or any of PyTorch's exceptions, if it does not fit this learner."""
        self.network.load_state_dict(state["params"])
        if self._ema:
            self._ema.network.load_state_dict(state["params_ema"])
        restore_optimizer(self._optimizer, state["optimizer"])
        if any(type(value) not in (int, float) for value in state["scaler"].values()):
            raise ValueError(f"invalid state of the loss scaler: {state['scaler']}")
        self._scaler.load_state_dict(state["scaler"])


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """Convert N x H x W x 3 uint8 to N x 3 x H x W float32 in [0, 1], in channels_last layout."""
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255)
