"""The training step: forward, backward, optimiser and EMA update."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from srshards import PatchBatch
from trainer.models import Network
from trainer.training.adversary import ADVERSARY_COLUMNS, Adversary
from trainer.training.augment import Augment, augmented
from trainer.training.captured import NUM_WARM_UPS, Captured, ImagePair
from trainer.training.device import Precision
from trainer.training.objective import Images, Objective
from trainer.training.optimizers import make_average, make_optimizer
from trainer.training.schedule import Decay, cosine, learning_rate
from trainer.training.sharpen import Sharpen
from trainer.training.step_loss import loss_function
from trainer.training.step_mode import StepMode


@dataclass(frozen=True)
class StepSettings:
    """Settings of the training step. `lr` is the peak; `clip` 0 disables clipping; `ema` is the decay of the EMA.

    `decay` is the rate after the warm-up, as a share of the peak. `seed` is that of the augmentations. The losses of
    `objective` compare with HR sharpened by `sharpen`.
    """

    total_steps: int
    lr: float
    warmup: int
    objective: Objective
    precision: Precision
    micro_batches: int
    clip: float
    ema: float
    mode: StepMode
    decay: Decay = cosine
    optimizer: str = "adamw"
    augments: tuple[Augment, ...] = ()
    seed: int = 0
    sharpen: Sharpen | None = None


class Learner:
    """A network with its optimiser, EMA and loss scaler, and its adversary if the objective is adversarial.

    `ema_network` holds the EMA, or the average of a schedule-free optimiser; None: neither.
    `ddp` is the network's DDP wrapper, which reduces the gradients in the last micro-batch of a step.
    """

    def __init__(
        self,
        network: Network,
        ema_network: Network | None,
        settings: StepSettings,
        ddp: DistributedDataParallel | None = None,
        adversary: Adversary | None = None,
    ) -> None:
        self.network = network
        self.adversary = adversary
        self.settings = settings
        self.device = next(network.parameters()).device
        captures = settings.mode.captures
        self._no_sync: Callable[[], AbstractContextManager[None]] = ddp.no_sync if ddp else nullcontext
        self._active = settings.objective.active(0)
        self._loss = loss_function(
            ddp or network,
            ema_network,
            settings.objective,
            settings.precision,
            settings.sharpen,
            compiles=settings.mode.compiles,
            is_ddp=ddp is not None,
        )
        self._optimizer = make_optimizer(settings.optimizer, network, settings.lr, captures)
        self._ema = (
            make_average(self._optimizer, ema_network, settings.ema, captures) if ema_network is not None else None
        )
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision.scales_loss)
        self._captured = Captured(self._update, self.device) if captures else None

    @property
    def start_up_steps(self) -> int:
        """Number of steps that take longer, until everything is compiled, tuned and captured."""
        if self._captured:
            return NUM_WARM_UPS + 1
        return int(self.settings.mode.compiles or self.device.type == "cuda")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values that `step` returns."""
        return ("loss", *self.settings.objective.names, *(ADVERSARY_COLUMNS if self.adversary else ()))

    def active_columns(self, step: int) -> tuple[bool, ...]:
        """Return which of `columns` a step, counted from 0, has a value of."""
        objective = self.settings.objective
        active = objective.active(step)
        adversarial = [objective.is_adversarial(active)] * (len(ADVERSARY_COLUMNS) if self.adversary else 0)
        return (True, *(number in active for number in range(len(objective.names))), *adversarial)

    @property
    def evaluation_network(self) -> Network:
        """The network to validate: the EMA network if there is one, else the network itself."""
        return self._ema.network if self._ema else self.network

    def weights(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
        """Return the network's state dict, and that of its EMA if there is one."""
        return self.network.state_dict(), self._ema.network.state_dict() if self._ema else None

    def rate(self, step: int) -> float:
        settings = self.settings
        return learning_rate(step, settings.total_steps, settings.lr, settings.warmup, settings.decay)

    def step(self, step: int, batches: Iterator[PatchBatch]) -> torch.Tensor:
        """Update the weights from the step's micro-batches. Return the values of `columns` as a vector on the device.

        They are means over the micro-batches, and 0 where `active_columns` says that there is none.
        """
        rate = self.rate(step)
        self._optimizer.set_rate(rate)
        if self.adversary:
            self.adversary.set_rate(rate / self.settings.lr)
        if self._ema:
            self._ema.set_step(step)
        self._set_active(self.settings.objective.active(step))
        micro_batches = (
            augmented(self.settings.augments, self.settings.seed, step, batch.hr, batch.input)
            for batch in islice(batches, self.settings.micro_batches)
        )
        if not self._captured:
            return self._update(micro_batches)
        for number, images in enumerate(micro_batches):
            self._captured.load(number, images)
        return self._captured()

    def _set_active(self, active: tuple[int, ...]) -> None:
        """Set which losses the step has. A graph has those that were active when it was captured."""
        if active != self._active and self._captured:
            self._captured.forget()
        self._active = active

    def _update(self, micro_batches: Iterable[ImagePair]) -> torch.Tensor:
        """Everything of a step that runs on the device."""
        count = self.settings.micro_batches
        rows = []
        for number, (hr, network_input) in enumerate(micro_batches):
            with self._no_sync() if number < count - 1 else nullcontext():
                loss, row, images = self._loss(hr, network_input, self._active)
                loss = loss / count if count > 1 else loss
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if self.adversary:
                row = torch.cat([row, self._train_adversary(images, number)])
            rows.append(row)
        if self.settings.clip:
            self._scaler.unscale_(self._optimizer)  # type: ignore[arg-type]
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self._scaler.step(self._optimizer)  # type: ignore[arg-type]
        self._scaler.update()
        self._optimizer.zero_grad()
        if self._ema:
            self._ema.update(self.network)
        return rows[0] if count == 1 else torch.stack(rows).mean(0)

    def _train_adversary(self, images: Images, micro_batch: int) -> torch.Tensor:
        """Train the adversary, if it is active, and return its figures, named by ADVERSARY_COLUMNS."""
        assert self.adversary
        if not self.settings.objective.is_adversarial(self._active):
            return torch.zeros(len(ADVERSARY_COLUMNS), device=self.device)
        return self.adversary.update(images.output, images.hr, micro_batch, self.settings.micro_batches)

    def is_finite(self) -> bool:
        """Return whether all weights are finite. Synchronises with a GPU."""
        norms = torch._foreach_norm([parameter.detach() for parameter in self.network.parameters()])
        is_finite = bool(torch.stack(norms).isfinite().all())
        return is_finite and (self.adversary is None or self.adversary.is_finite())

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
            **({"discriminator": self.adversary.state()} if self.adversary else {}),
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
        if self.adversary:
            self.adversary.restore(state["discriminator"])
        elif "discriminator" in state:
            raise ValueError("the state has a discriminator")
