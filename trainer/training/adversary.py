"""The discriminator of a training, with its optimiser and loss scaler."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.distributed.group import SINGLE_PROCESS_GROUP, RankGroup
from trainer.losses.adversarial import SCORES, AdversarialLoss, DiscriminatorFigures, of_one_process
from trainer.models.discriminators import refuse_misfit
from trainer.models.spectral_norm import Discriminator
from trainer.training.device import Precision
from trainer.training.optim import AdamW
from trainer.training.step_mode import StepMode

ADVERSARY_COLUMNS = ("discriminator", *SCORES)  # names in the journal of what `Adversary.update` returns


@dataclass(frozen=True)
class AdversarySettings:
    """Settings of the discriminator's training. `lr` is the peak of its learning rate."""

    loss: AdversarialLoss
    precision: Precision
    mode: StepMode
    lr: float


class Adversary:
    """A discriminator with its optimiser and loss scaler. Its state is in tensors that are updated in place.

    With several ranks, all must call the same methods in the same order. Each step then equals that of one process,
    each of whose micro-batches has the patches of all ranks: a relativistic loss has the mean logits of all of these.
    """

    def __init__(
        self, network: Discriminator, settings: AdversarySettings, group: RankGroup = SINGLE_PROCESS_GROUP
    ) -> None:
        self.network = network
        self._loss = settings.loss
        self._lr = settings.lr
        device, mode, precision = next(network.parameters()).device, settings.mode, settings.precision
        self._autocast = partial(
            # Without autocast's cache of converted weights, as in the learner.
            torch.autocast,
            device.type,
            precision.dtype,
            enabled=precision.dtype is not None,
            cache_enabled=False,
        )
        # The same tensors without gradients, so that the network's loss needs no change of the discriminator's state.
        self._frozen = copy.deepcopy(network).requires_grad_(False)
        self._frozen.load_state_dict(network.state_dict(), assign=True)
        both = _RealAndFake(network)
        ddp = group.wrap_ddp(both, device, mode.compiles)
        self._no_sync: Callable[[], AbstractContextManager[None]] = ddp.no_sync if ddp else nullcontext
        self._over_ranks = partial(_mean_over_ranks, ddp.process_group, group.world_size) if ddp else of_one_process
        self._discriminate = self._discriminate_function(ddp or both, mode.compiles, is_ddp=ddp is not None)
        self._optimizer = AdamW(network.parameters(), settings.lr, mode.captures)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision.scales_loss)

    @property
    def guessing(self) -> float:
        """The least loss of a discriminator that tells nothing apart."""
        return self._loss.guessing

    def set_rate(self, share: float) -> None:
        """Set the learning rate of the next step to this share of the peak, without synchronising."""
        self._optimizer.set_rate(self._lr * share)

    def generator_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the adversarial loss of the network's output: a float32 scalar, whose gradients reach only the output.

        Both images are N x 3 x H x W in [0, 1]; the output need not be clamped. Can be compiled as part of a loss. Call
        its `backward` before the discriminator's next step.
        """
        real = None
        with self._autocast():
            if self._loss.is_relativistic:
                with torch.no_grad():
                    real = self._frozen(target)
            fake = self._frozen(output)
        return self._loss.generator(fake, real, self._over_ranks)

    def update(self, output: Tensor, target: Tensor, micro_batch: int = 0, micro_batches: int = 1) -> Tensor:
        """Train the discriminator to tell the target from the output, which gets no gradients.

        Gradients of a step's micro-batches, numbered from 0, are accumulated; the last one takes the optimiser step.
        Return the figures named by ADVERSARY_COLUMNS, of this rank and micro-batch, as a float32 vector on the device.
        """
        is_last = micro_batch == micro_batches - 1
        with nullcontext() if is_last else self._no_sync():
            figures = self._discriminate(target, output.detach())
            self._scaler.scale(figures.loss / micro_batches).backward()  # type: ignore[no-untyped-call]
        if is_last:
            self._scaler.step(self._optimizer)  # type: ignore[arg-type]
            self._scaler.update()
            self._optimizer.zero_grad()
            self.network.iterate()
        return torch.stack(figures).detach()

    def is_finite(self) -> bool:
        """Return whether all parameters are finite. Synchronises with a GPU."""
        norms = torch._foreach_norm([parameter.detach() for parameter in self.network.parameters()])
        return bool(torch.stack(norms).isfinite().all())

    def state(self) -> dict[str, Any]:
        """Return everything that `restore` needs, as nested dicts of tensors and numbers."""
        return {
            "params": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` returned. UsageError for another discriminator.

        ValueError, or any of PyTorch's exceptions, if it is not a state.
        """
        params = state["params"]
        error = "the state has another discriminator than the settings (restore them, or start a new run)"
        refuse_misfit(self.network, params, error)
        self.network.load_state_dict(params)
        self._optimizer.load_state_dict(state["optimizer"])
        if any(type(value) not in (int, float) for value in state["scaler"].values()):
            raise ValueError(f"invalid state of the loss scaler: {state['scaler']}")
        if state["scaler"]:  # empty after steps in another precision
            self._scaler.load_state_dict(state["scaler"])

    def _discriminate_function(
        self, network: nn.Module, compiles: bool, is_ddp: bool
    ) -> Callable[[Tensor, Tensor], DiscriminatorFigures]:
        """Return the discriminator's loss as a function of real and generated images."""
        # Of DDP, only the network is compiled, as in the learner.
        forward: Callable[..., tuple[Tensor, Tensor]] = torch.compile(network) if compiles and is_ddp else network

        def discriminate(real: Tensor, fake: Tensor) -> DiscriminatorFigures:
            with self._autocast():
                logits = forward(real, fake)
            return self._loss.discriminator(*logits, self._over_ranks)

        return torch.compile(discriminate, fullgraph=True, dynamic=False) if compiles and not is_ddp else discriminate


class _RealAndFake(nn.Module):
    """Applies the discriminator to real and to generated images, in one call: DDP reduces the gradients of one."""

    def __init__(self, network: Discriminator) -> None:
        super().__init__()
        self.network = network

    def forward(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(real), self.network(fake)


def _mean_over_ranks(process_group: dist.ProcessGroup, world_size: int, values: Tensor) -> Tensor:
    """Return the elementwise mean over the ranks. Gradients flow to the values of all ranks."""
    mean: Tensor = _SumOverRanks.apply(values / world_size, process_group)  # type: ignore[no-untyped-call]
    return mean


class _SumOverRanks(torch.autograd.Function):
    """The sum over the ranks, on each of them, so that each gets the sum of the gradients. PyTorch's is deprecated."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, process_group: dist.ProcessGroup) -> Tensor:
        ctx.process_group = process_group
        return _summed(values, process_group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _summed(gradients[0], ctx.process_group), None


def _summed(values: Tensor, process_group: dist.ProcessGroup) -> Tensor:
    total = values.clone()
    dist.all_reduce(total, group=process_group)
    return total
