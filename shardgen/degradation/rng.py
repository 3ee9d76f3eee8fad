"""Deterministic random numbers that depend only on a key: equal in any process, in any order, on any machine."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

_DECIMALS = 6  # of drawn numbers, which are recorded as text


class KeyedRng:
    """Random number generator seeded by `key`: integers and strings, which may contain surrogate escapes."""

    def __init__(self, *key: int | str) -> None:
        digest = hashlib.sha256(json.dumps(key).encode("ascii")).digest()
        # Python guarantees only random() to give equal numbers in all releases; the other methods are based on it.
        self._random = random.Random(int.from_bytes(digest, "big")).random

    def uniform(self, low: float, high: float) -> float:
        """Return a number from low to high, rounded to six decimals."""
        return round(low + (high - low) * self._random(), _DECIMALS)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random() < probability

    def integer(self, low: int, high: int, step: int = 1) -> int:
        """Return one of low, low + step, ..., high."""
        return low + step * int(self._random() * ((high - low) // step + 1))

    def choice(self, weights: Mapping[str, float]) -> str:
        """Return a name, with probability proportional to its weight."""
        names = list(weights)
        return names[self.index(list(weights.values()))]

    def index(self, weights: Sequence[float]) -> int:
        """Return an index, with probability proportional to its weight; never one of weight 0."""
        point = self._random() * sum(weights)
        last = 0
        for index, weight in enumerate(weights):
            if weight > 0:
                last = index
                point -= weight
                if point < 0:
                    break
        return last

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in random order (Fisher-Yates)."""
        order = list(items)
        for index in range(len(order) - 1, 0, -1):
            other = self.integer(0, index)
            order[index], order[other] = order[other], order[index]
        return order

    def seed(self) -> int:
        """Return 53 random bits, as the seed of noise with too many values to record."""
        return int(self._random() * (1 << 53))
