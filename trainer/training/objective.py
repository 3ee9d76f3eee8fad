"""What a network is trained on: the weighted sum of losses, each in its range of steps."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from trainer.loss_table import LOSSES
from trainer.loss_terms import LossTerm
from trainer.losses import build_loss

_CPU = torch.device("cpu")


class Objective:
    """The weighted sum of losses on a device. A step has one or more of the terms, which `active` returns by number.

    `weights` is where the files of networks are that losses use; UsageError if one is missing or damaged.
    """

    def __init__(self, terms: Sequence[LossTerm], device: torch.device = _CPU, weights: Path | None = None) -> None:
        self._terms = terms
        self._functions = [build_loss(term.name, device, weights) for term in terms]
        # A single loss with weight 1 is the sum, and is not reported twice.
        self.names = () if [term.weight for term in terms] == [1.0] else tuple(term.name for term in terms)

    def active(self, step: int) -> tuple[int, ...]:
        """Return the numbers of the terms in a step, counted from 0."""
        return tuple(number for number, term in enumerate(self._terms) if term.is_active(step))

    def uses_ema(self, active: Sequence[int]) -> bool:
        """Return whether any of these terms needs the output of the EMA network."""
        return any(LOSSES[self._terms[number].name].uses_ema for number in active)

    def __call__(
        self, active: Sequence[int], output: Tensor, target: Tensor, ema_output: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the sum to minimise, and a detached vector of it and the value of each of `names`; 0 if inactive."""
        values = {number: self._value(number, output, target, ema_output) for number in active}
        total = reduce(torch.add, (self._weighted(number, value) for number, value in values.items()))
        if not self.names:
            return total, total.detach().reshape(1)
        inactive = torch.zeros_like(total)
        columns = [total, *(values.get(number, inactive) for number in range(len(self._terms)))]
        return total, torch.stack([column.detach() for column in columns])

    def _value(self, number: int, output: Tensor, target: Tensor, ema_output: Tensor | None) -> Tensor:
        images = (output, target, ema_output) if LOSSES[self._terms[number].name].uses_ema else (output, target)
        return self._functions[number](*images)

    def _weighted(self, number: int, value: Tensor) -> Tensor:
        weight = self._terms[number].weight
        return value if weight == 1 else weight * value
