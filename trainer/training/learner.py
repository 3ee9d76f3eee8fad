"""A step of training: batches in, better weights out."""

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
    """What a step does. `lr` is the peak; `clip` 0 leaves gradients as they are; `ema` 0 keeps no EMA."""

    total_steps: int
    lr: float
    warmup: int
    loss: Loss
    precision: Precision
    micro_batches: int
    clip: float
    ema: float


class Learner:
    """A network and all that changes with it: optimiser, EMA, loss scale.

    `forward` may be its compiled form, or its DDP wrapper. Then `no_sync` is DDP's context in which gradients are not
    reduced: those of a step's micro-batches are sent with the last one's.
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
        """The network to validate: the EMA of the weights if there is one, else the network itself."""
        return self._ema.network if self._ema else self.network

    def weights(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
        """The network's, and their EMA if there is one."""
        return self.network.state_dict(), self._ema.network.state_dict() if self._ema else None

    def rate(self, step: int) -> float:
        return learning_rate(step, self.settings.total_steps, self.settings.lr, self.settings.warmup)

    def step(self, step: int, batches: Iterator[PatchBatch]) -> torch.Tensor:
        """Change the weights after the step's micro-batches. The mean loss, a scalar on the device, not waited for."""
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
        """Whether all weights are numbers. Waits for a GPU."""
        norms = torch._foreach_norm([parameter.detach() for parameter in self.network.parameters()])
        return bool(torch.stack(norms).isfinite().all())

    def state(self) -> dict[str, Any]:
        """Plain dicts of tensors and numbers."""
        params, params_ema = self.weights()
        return {
            "params": params,
            "params_ema": params_ema,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what `state` gave. ValueError, or whatever PyTorch raises, when it is another learner's."""
        self.network.load_state_dict(state["params"])
        if self._ema:
            self._ema.network.load_state_dict(state["params_ema"])
        restore_optimizer(self._optimizer, state["optimizer"])
        if any(type(value) not in (int, float) for value in state["scaler"].values()):
            raise ValueError(f"no state of a loss scale: {state['scaler']}")
        self._scaler.load_state_dict(state["scaler"])


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """N x H x W x 3 uint8 to N x 3 x H x W float32 in [0, 1]; the permuted layout is channels_last."""
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255)
