"""Curves of any length in a few hundred points: each stands for a stretch of steps, and all stretches are as long."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

_NO_STEP = np.iinfo(np.int64).max
_Number = TypeVar("_Number", np.int64, np.float64)


class Point(NamedTuple):
    """`num` values of the steps from `first` to `last`: their mean, the lowest and the highest."""

    first: int
    last: int
    mean: float
    low: float
    high: float
    num: int


class Thinned:
    """Several quantities over the same steps, taken in as they come. Never takes more memory than `most` points do.

    Stretches are as many steps long as the next power of two that suffices, so those of two curves can be made alike.
    """

    def __init__(self, names: Sequence[str], most: int) -> None:
        self._names = tuple(names)
        self._slots = most + most % 2
        self.width = 1
        shape = (self._slots, len(self._names))
        self._first = np.full(self._slots, _NO_STEP)
        self._last = np.full(self._slots, -1, np.int64)
        self._count = np.zeros(shape, np.int64)
        self._sum = np.zeros(shape)
        self._low = np.full(shape, np.nan)
        self._high = np.full(shape, np.nan)

    def add(self, steps: Sequence[int], values: Sequence[Sequence[float]]) -> None:
        """For each step a value of each quantity. NaN: there is none."""
        if not steps:
            return
        at, given = np.asarray(steps, np.int64), np.asarray(values, float)
        while int(at.max()) // self.width >= self._slots:
            self._halve()
        slot = at // self.width
        np.minimum.at(self._first, slot, at)
        np.maximum.at(self._last, slot, at)
        np.add.at(self._count, slot, ~np.isnan(given))
        np.add.at(self._sum, slot, np.nan_to_num(given))
        np.fmin.at(self._low, slot, given)
        np.fmax.at(self._high, slot, given)

    def _halve(self) -> None:
        self.width *= 2
        self._first = _paired(self._first, np.minimum, _NO_STEP)
        self._last = _paired(self._last, np.maximum, -1)
        self._count = _paired(self._count, np.add, 0)
        self._sum = _paired(self._sum, np.add, 0)
        self._low = _paired(self._low, np.fmin, np.nan)
        self._high = _paired(self._high, np.fmax, np.nan)

    def points(self, name: str, width: int = 1) -> list[Point]:
        """In order of the steps. Stretches are `width` steps long, a power of two, or longer where they are already."""
        column, times = self._names.index(name), max(1, width // self.width)
        found: list[Point] = []
        before = -1
        for slot in np.flatnonzero(self._count[:, column]).tolist():
            first, last, count = int(self._first[slot]), int(self._last[slot]), int(self._count[slot, column])
            low, high = float(self._low[slot, column]), float(self._high[slot, column])
            mean = float(self._sum[slot, column]) / count
            if slot // times == before:
                one = found.pop()
                mean = (one.mean * one.num + mean * count) / (one.num + count)
                low, high, first, count = min(one.low, low), max(one.high, high), one.first, one.num + count
            found.append(Point(first, last, min(max(mean, low), high), low, high, count))
            before = slot // times
        return found


def _paired(values: NDArray[_Number], join: np.ufunc, empty: float) -> NDArray[_Number]:
    """Each two neighbours as one, and room for as many more."""
    joined = join(values[::2], values[1::2])
    return np.concatenate([joined, np.full_like(joined, empty)])
