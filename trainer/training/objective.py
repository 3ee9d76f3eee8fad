"""What a network is trained on: the weighted sum of losses, each in its range of steps."""

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.loss_table import LOSSES
from trainer.loss_terms import LossTerm
from trainer.losses import build_loss

_CPU = torch.device("cpu")


class Images(NamedTuple):
    """Images of a batch, N x 3 x H x W in [0, 1], of which only `output` has gradients.

    `target` is HR, sharpened if the settings say so. `ema_output` is there if a loss uses it.
    """

    output: Tensor
    target: Tensor
    hr: Tensor
    ema_output: Tensor | None = None


class AdversarialTerm(NamedTuple):
    """The adversarial loss among the losses: its weight and steps, and its value for the network's output and HR."""

    term: LossTerm
    loss: Callable[[Tensor, Tensor], Tensor]


class Objective:
    """The weighted sum of losses on a device. A step has one or more of the terms, which `active` returns by number.

    `weights` is where the files of networks are that losses use; UsageError if one is missing or damaged. The
    adversarial loss, if there is one, is the last term.
    """

    def __init__(
        self,
        terms: Sequence[LossTerm],
        device: torch.device = _CPU,
        weights: Path | None = None,
        adversarial: AdversarialTerm | None = None,
    ) -> None:
        self._functions = [build_loss(term.name, device, weights) for term in terms]
        self._uses_ema = [LOSSES[term.name].uses_ema for term in terms]
        self._adversarial = adversarial
        self._terms = [*terms, adversarial.term] if adversarial else [*terms]
        names = [*(term.name for term in terms), *(["gan"] if adversarial else [])]
        # A single loss with weight 1 is the sum, and is not reported twice.
        self.names = () if [term.weight for term in self._terms] == [1.0] else tuple(names)

    @property
    def max_sets(self) -> int:
        """The largest number of different sets of active terms: each start and each stop changes the set."""
        return 2 * len(self._terms) + 1

    def active(self, step: int) -> tuple[int, ...]:
        """Return the numbers of the terms in a step, counted from 0."""
        return tuple(number for number, term in enumerate(self._terms) if term.is_active(step))

    def is_adversarial(self, active: Sequence[int]) -> bool:
        """Return whether the adversarial loss is one of these terms."""
        return len(self._functions) in active

    def uses_ema(self, active: Sequence[int]) -> bool:
        """Return whether any of these terms needs the output of the EMA network."""
        return any(self._uses_ema[number] for number in active if number < len(self._functions))

    def __call__(self, active: Sequence[int], images: Images) -> tuple[Tensor, Tensor]:
        """Return the sum to minimise, and a detached vector of it and the value of each of `names`; 0 if inactive."""
        values = {number: self._value(number, images) for number in active}
        total = reduce(torch.add, (self._weighted(number, value) for number, value in values.items()))
        if not self.names:
            return total, total.detach().reshape(1)
        inactive = torch.zeros_like(total)
        columns = [total, *(values.get(number, inactive) for number in range(len(self._terms)))]
        return total, torch.stack([column.detach() for column in columns])

    def _value(self, number: int, images: Images) -> Tensor:
        if self._adversarial and number == len(self._functions):
            return self._adversarial.loss(images.output, images.hr)
        extra = (images.ema_output,) if self._uses_ema[number] else ()
        value: Tensor = self._functions[number](images.output, images.target, *extra)
        return value

    def _weighted(self, number: int, value: Tensor) -> Tensor:
        weight = self._terms[number].weight
        return value if weight == 1 else weight * value
