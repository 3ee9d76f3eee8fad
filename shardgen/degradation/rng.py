"""Draws that depend on nothing but their name: the same in any process, in any order, on any machine."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

_DECIMALS = 6  # what is drawn is written down: nobody reads seventeen digits


class Dice:
    """An endless row of draws that the words decide. Strings may be any that the file system gives."""

    def __init__(self, *words: int | str) -> None:
        name = json.dumps(words).encode("ascii")
        # Of Python's generator only random() promises the same row in every release; all else is made of it here.
        self._random = random.Random(int.from_bytes(hashlib.sha256(name).digest(), "big")).random

    def uniform(self, low: float, high: float) -> float:
        """A number from low to high, rounded to six decimals."""
        return round(low + (high - low) * self._random(), _DECIMALS)

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def integer(self, low: int, high: int, step: int = 1) -> int:
        """One of low, low + step, ... up to high."""
        return low + step * int(self._random() * ((high - low) // step + 1))

    def choice(self, weights: Mapping[str, float]) -> str:
        """A name, as often as its share of the weights says."""
        names = list(weights)
        return names[self.index(list(weights.values()))]

    def index(self, weights: Sequence[float]) -> int:
        """A place in the weights, as often as its share says; never one of weight 0."""
        point = self._random() * sum(weights)
        last = 0
        for place, weight in enumerate(weights):
            if weight > 0:
                last = place
                point -= weight
                if point < 0:
                    break
        return last

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a random order (Fisher and Yates)."""
        order = list(items)
        for place in range(len(order) - 1, 0, -1):
            other = self.integer(0, place)
            order[place], order[other] = order[other], order[place]
        return order

    def seed(self) -> int:
        """53 random bits, for a noise that has too many values to be written down."""
        return int(self._random() * (1 << 53))
