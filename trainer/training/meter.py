"""Measurements during training: losses, throughput, and the share of time spent waiting for data."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from srshards.errors import RunError
from trainer.distributed.group import SINGLE_PROCESS_GROUP, RankGroup
from trainer.losses.adversarial import SCORES
from trainer.training.account import Account, training_s

_MAX_PENDING_LOSSES = 20  # steps between reads of the losses, which synchronise with the GPU and the other ranks

NOT_FINITE_ADVICE = (
    "earlier saves are kept. Start a new run with a smaller --lr or --clip, or with --amp off; to start from saved "
    "weights, pass --init"
)


class Pace(NamedTuple):
    """Measurements of a range of steps. `data_wait` is the share of time spent waiting for batches.

    `losses` are the values of single losses, of which `loss` is the weighted sum, and that of the discriminator, as
    means over the steps in which they were active; `scores` those that the discriminator gives to real and generated
    images. With several ranks, losses are means over them, the throughput is their sum and the wait their maximum.
    """

    loss: float
    lr: float
    patches_per_s: float
    data_wait: float
    seconds: float
    losses: dict[str, float]
    scores: dict[str, float]


class Meter:
    """Measures the steps from `start` on, by the account: without validation, saving and start-up.

    `settle` and `lap` are collective: all ranks of the group must call them after the same steps. `losses` has the
    values of `columns` in each step since the last lap, including those before a run was resumed.
    """

    def __init__(
        self,
        account: Account,
        patches_per_step: int,
        columns: Sequence[str],
        losses: list[list[float]],
        group: RankGroup = SINGLE_PROCESS_GROUP,
    ) -> None:
        self.losses = losses
        self._columns = columns
        self._account = account
        self._patches_per_step = patches_per_step
        self._group = group
        self._pending: list[tuple[torch.Tensor, Sequence[bool]]] = []  # of this rank, still on the device
        self._steps = 0  # since the last lap
        self.start()

    def start(self) -> None:
        """Start a lap now."""
        self._start = self._account.seconds()

    def add(self, losses: torch.Tensor, active: Sequence[bool], step: int, is_timed: bool = True) -> None:
        """Add the losses of the run's `step`-th step, a vector of which `active` count. RunError if one is not finite.

        A step of the start-up is not timed, and does not count in the throughput.
        """
        self._pending.append((losses, active))
        self._steps += is_timed
        is_cheap_to_read = losses.device.type == "cpu" and self._group.world_size == 1
        if is_cheap_to_read or len(self._pending) >= _MAX_PENDING_LOSSES:
            self.settle(step)

    def settle(self, step: int) -> None:
        """Read all pending losses up to this step, synchronising with a GPU. RunError if one is not finite."""
        if not self._pending:
            return
        with self._account.phase("steps"):  # waits until the device has computed them
            values = torch.stack([losses for losses, _ in self._pending])
            sums = torch.tensor(self._group.sum(values.flatten().tolist()), dtype=torch.float64).view(values.shape)
        rows = (sums / self._group.world_size).tolist()
        pending, self._pending = self._pending, []
        for number, (row, (_, active)) in enumerate(zip(rows, pending, strict=True), start=step - len(rows) + 1):
            # The single losses first, because one that is not finite is the reason for the sum.
            total, *single = zip(self._columns, row, active, strict=True)
            for name, value, is_active in (*single, total):
                if is_active and not math.isfinite(value):
                    label = "loss" if name == "loss" else f"loss '{name}'"
                    raise self._group.report_once(
                        RunError(f"the {label} of step {number:,} is not finite ({value}); {NOT_FINITE_ADVICE}")
                    )
            self.losses.append([value if is_active else math.nan for value, is_active in zip(row, active, strict=True)])

    def lap(self, step: int, lr: float) -> Pace | None:
        """Return the measurements since the last lap and start the next one; None if no step was timed."""
        self.settle(step)
        if not self._steps:
            return None
        now, start = self._account.seconds(), self._start
        seconds = max(training_s(now) - training_s(start), 1e-9)
        (data_wait,) = self._group.max([(now["data_wait_s"] - start["data_wait_s"]) / seconds])
        means = self._means()
        pace = Pace(
            loss=means.pop("loss"),
            lr=lr,
            patches_per_s=self._steps * self._patches_per_step / seconds,
            data_wait=min(1.0, data_wait),
            seconds=seconds,
            losses={name: value for name, value in means.items() if name not in SCORES},
            scores={name: value for name, value in means.items() if name in SCORES},
        )
        self.losses.clear()
        self._steps = 0
        self.start()
        return pace

    def _means(self) -> dict[str, float]:
        """Return the mean of each column over the steps that have a value."""
        values = {
            name: [value for value in column if not math.isnan(value)]
            for name, column in zip(self._columns, zip(*self.losses, strict=True), strict=True)
        }
        return {name: sum(column) / len(column) for name, column in values.items() if column}
