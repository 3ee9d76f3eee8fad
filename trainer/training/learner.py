"""The training step: forward, backward, optimiser and EMA update."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from srshards import PatchBatch
from trainer.losses import Loss
from trainer.models import Network
from trainer.training.captured import NUM_WARM_UPS, Captured, ImagePair
from trainer.training.device import Precision
from trainer.training.optim import AdamW, Ema, learning_rate
from trainer.training.step_mode import StepMode

LossFunction: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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
    mode: StepMode


class Learner:
    """A network with its optimiser, EMA and loss scaler.

    `ddp` is the network's DDP wrapper, which reduces the gradients in the last micro-batch of a step.
    """

    def __init__(
        self,
        network: Network,
        ema_network: Network | None,
        settings: StepSettings,
        ddp: DistributedDataParallel | None = None,
    ) -> None:
        self.network = network
        self.settings = settings
        self.device = next(network.parameters()).device
        captures = settings.mode.captures
        self._no_sync: Callable[[], AbstractContextManager[None]] = ddp.no_sync if ddp else nullcontext
        self._loss = _loss_function(settings, ddp or network, is_ddp=ddp is not None)
        self._optimizer = AdamW(network.parameters(), settings.lr, captures)
        self._ema = Ema(ema_network, settings.ema, captures) if ema_network is not None else None
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision.scales_loss)
        self._captured = Captured(self._update, self.device) if captures else None

    @property
    def start_up_steps(self) -> int:
        """Number of steps that take longer, until everything is compiled, tuned and captured."""
        if self._captured:
            return NUM_WARM_UPS + 1
        return int(self.settings.mode.compiles or self.device.type == "cuda")

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
        self._optimizer.set_rate(self.rate(step))
        if self._ema:
            self._ema.set_step(step)
        micro_batches = ((batch.hr, batch.input) for batch in islice(batches, self.settings.micro_batches))
        if not self._captured:
            return self._update(micro_batches)
        for number, images in enumerate(micro_batches):
            self._captured.load(number, images)
        return self._captured()

    def _update(self, micro_batches: Iterable[ImagePair]) -> torch.Tensor:
        """Everything of a step that runs on the device."""
        count = self.settings.micro_batches
        losses = []
        for number, (hr, network_input) in enumerate(micro_batches):
            with self._no_sync() if number < count - 1 else nullcontext():
                loss = self._loss(hr, network_input)
                loss = loss / count if count > 1 else loss
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if self.settings.clip:
            self._scaler.unscale_(self._optimizer)  # type: ignore[arg-type]
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self._scaler.step(self._optimizer)  # type: ignore[arg-type]
        self._scaler.update()
        self._optimizer.zero_grad()
        if self._ema:
            self._ema.update(self.network)
        return losses[0] if count == 1 else torch.stack(losses).sum()

    def is_finite(self) -> bool:
        """Return whether all weights are finite. Synchronises with a GPU."""
        norms = torch._foreach_norm([parameter.detach() for parameter in self.network.parameters()])
        return bool(torch.stack(norms).isfinite().all())

    def start_from(self, params: dict[str, torch.Tensor]) -> None:
        """Load initial weights into the network and its EMA."""
        for network in (self.network, self.evaluation_network):
            network.load_state_dict(params)

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
        self._optimizer.load_state_dict(state["optimizer"])
        if any(type(value) not in (int, float) for value in state["scaler"].values()):
            raise ValueError(f"invalid state of the loss scaler: {state['scaler']}")
        if state["scaler"]:  # empty after steps in another precision, e.g. on another device
            self._scaler.load_state_dict(state["scaler"])


def _loss_function(settings: StepSettings, network: nn.Module, is_ddp: bool) -> LossFunction:
    """Return the loss as a function of uint8 HR and input, compiled if the settings say so."""
    dtype, compiles = settings.precision.dtype, settings.mode.compiles
    # Compile only the DDP wrapper: PyTorch then splits the graph to overlap gradient reduction.
    forward: Callable[[torch.Tensor], torch.Tensor] = torch.compile(network) if compiles and is_ddp else network

    def loss(hr: torch.Tensor, network_input: torch.Tensor) -> torch.Tensor:
        target = to_unit_range(hr)
        # Without autocast's cache of converted weights: each weight is used once, and a CUDA graph cannot use it.
        with torch.autocast(hr.device.type, dtype, enabled=dtype is not None, cache_enabled=False):
            output = forward(to_unit_range(network_input))
        return settings.loss(output, target)

    return torch.compile(loss, fullgraph=True, dynamic=False) if compiles and not is_ddp else loss


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """Convert N x H x W x 3 uint8 to N x 3 x H x W float32 in [0, 1], in channels_last layout."""
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255)
