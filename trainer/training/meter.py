"""What training costs and gives: losses, seconds, and the share of them that was spent waiting for data."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import NamedTuple

import torch

from srshards import PatchLoader
from srshards.errors import RunError
from trainer.distributed.group import SINGLE_PROCESS_GROUP, RankGroup

_LOSSES_ON_DEVICE = 20  # steps that may pass before a GPU, or other ranks, are asked for losses: asking makes them wait


NOT_FINITE = (
    "what was saved before stays. Try a smaller --lr or --clip, or --amp off, in a new run: --init takes saved weights"
)


class Pace(NamedTuple):
    """What a stretch of steps was like. `data_wait` is the share of its time that was spent waiting for batches.

    Of many ranks, the loss is their mean, the patches are all of theirs, and the wait is that of the one that waited
    most.
    """

    loss: float
    lr: float
    patches_per_s: float
    data_wait: float
    seconds: float


class Meter:
    """Counts from `start` on; what happens while it is paused (validating, saving) does not count.

    All ranks of the group count the same steps, and settle, pause and take laps after the same ones.
    """

    def __init__(
        self, loader: PatchLoader, patches_per_step: int, losses: list[float], group: RankGroup = SINGLE_PROCESS_GROUP
    ) -> None:
        self.losses = losses  # of the steps since the last lap, those before a resumed run was stopped among them
        self._loader = loader
        self._patches_per_step = patches_per_step
        self._group = group
        self._pending: list[torch.Tensor] = []  # losses that are still on the device, and of this rank
        self._steps = 0  # since the last lap
        self._start_s = perf_counter()  # of the lap, moved on by every pause
        self._wait_s = 0.0  # of the loader, when the lap began

    def start(self) -> None:
        self._start_s, self._wait_s = perf_counter(), self._loader.wait_s

    def add(self, loss: torch.Tensor, step: int) -> None:
        """Note the loss of a step that is the `step`-th of the run. RunError when one is found not to be finite."""
        self._pending.append(loss)
        self._steps += 1
        at_hand = loss.device.type == "cpu" and self._group.world_size == 1
        if at_hand or len(self._pending) >= _LOSSES_ON_DEVICE:
            self.settle(step)

    def settle(self, step: int) -> None:
        """Look at all losses up to this step, which waits for a GPU. RunError names one that is not finite."""
        if not self._pending:
            return
        sums = self._group.sum(torch.stack(self._pending).tolist())
        losses = [total / self._group.world_size for total in sums]
        self._pending = []
        for number, loss in enumerate(losses, start=step - len(losses) + 1):
            if not math.isfinite(loss):
                raise self._group.report_once(
                    RunError(f"the loss of step {number:,} is not finite ({loss}); {NOT_FINITE}")
                )
        self.losses += losses

    @contextmanager
    def paused(self, step: int) -> Iterator[None]:
        """A time-out that does not count, after the GPU has finished this step."""
        self.settle(step)
        pause_s = perf_counter()
        yield
        self._start_s += perf_counter() - pause_s

    def lap(self, step: int, lr: float) -> Pace | None:
        """The steps since the last lap, and the seconds that they took are added; None when there were none."""
        self.settle(step)
        if not self._steps:
            return None
        seconds = max(perf_counter() - self._start_s, 1e-9)
        (data_wait,) = self._group.max([(self._loader.wait_s - self._wait_s) / seconds])
        pace = Pace(
            loss=sum(self.losses) / len(self.losses),
            lr=lr,
            patches_per_s=self._steps * self._patches_per_step / seconds,
            data_wait=min(1.0, data_wait),
            seconds=seconds,
        )
        self.losses.clear()
        self._steps = 0
        self.start()
        return pace
