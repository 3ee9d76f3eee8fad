"""Thin curves of any length to a few hundred points, each of which aggregates a range of steps of equal width."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

_NO_STEP = np.iinfo(np.int64).max
_BATCH = 4096  # values that `append` adds at once, because NumPy is slow for single ones
_Number = TypeVar("_Number", np.int64, np.float64)


class Point(NamedTuple):
    """Mean, minimum and maximum of `num` values of the steps from `first` to `last`."""

    first: int
    last: int
    mean: float
    low: float
    high: float
    num: int


class Thinned:
    """Streaming aggregation of several quantities over the same steps, in memory for at most `max_points` points.

    The width of a range is the smallest sufficient power of two, so that two curves can be merged to equal ranges.
    """

    def __init__(self, names: Sequence[str], max_points: int) -> None:
        self._names = tuple(names)
        self._slots = max_points + max_points % 2
        self.width = 1
        shape = (self._slots, len(self._names))
        self._first = np.full(self._slots, _NO_STEP)
        self._last = np.full(self._slots, -1, np.int64)
        self._count = np.zeros(shape, np.int64)
        self._sum = np.zeros(shape)
        self._low = np.full(shape, np.nan)
        self._high = np.full(shape, np.nan)
        self._kept: list[tuple[int, Sequence[float]]] = []

    def append(self, step: int, values: Sequence[float]) -> None:
        """Add the values of one step, at the latest when `flush` is called."""
        self._kept.append((step, values))
        if len(self._kept) == _BATCH:
            self.flush()

    def flush(self) -> None:
        """Add all values that were appended."""
        self.add([step for step, _ in self._kept], [values for _, values in self._kept])
        self._kept.clear()

    def add(self, steps: Sequence[int], values: Sequence[Sequence[float]]) -> None:
        """Add a value of each quantity for each step; NaN for no value."""
        if not steps:
            return
        step, value = np.asarray(steps, np.int64), np.asarray(values, float)
        while int(step.max()) // self.width >= self._slots:
            self._halve()
        slot = step // self.width
        np.minimum.at(self._first, slot, step)
        np.maximum.at(self._last, slot, step)
        np.add.at(self._count, slot, ~np.isnan(value))
        np.add.at(self._sum, slot, np.nan_to_num(value))
        np.fmin.at(self._low, slot, value)
        np.fmax.at(self._high, slot, value)

    def _halve(self) -> None:
        self.width *= 2
        self._first = _paired(self._first, np.minimum, _NO_STEP)
        self._last = _paired(self._last, np.maximum, -1)
        self._count = _paired(self._count, np.add, 0)
        self._sum = _paired(self._sum, np.add, 0)
        self._low = _paired(self._low, np.fmin, np.nan)
        self._high = _paired(self._high, np.fmax, np.nan)

    def points(self, name: str, width: int = 1) -> list[Point]:
        """Return the points of a quantity by step. Ranges have at least `width` steps, a power of two."""
        column, times = self._names.index(name), max(1, width // self.width)
        found: list[Point] = []
        previous = -1
        for slot in np.flatnonzero(self._count[:, column]).tolist():
            first, last, count = int(self._first[slot]), int(self._last[slot]), int(self._count[slot, column])
            low, high = float(self._low[slot, column]), float(self._high[slot, column])
            mean = float(self._sum[slot, column]) / count
            if slot // times == previous:
                point = found.pop()
                mean = (point.mean * point.num + mean * count) / (point.num + count)
                low, high, first, count = min(point.low, low), max(point.high, high), point.first, point.num + count
            found.append(Point(first, last, min(max(mean, low), high), low, high, count))
            previous = slot // times
        return found


def _paired(values: NDArray[_Number], join: np.ufunc, empty: float) -> NDArray[_Number]:
    """Join neighbouring pairs, and pad with empty slots to the original length."""
    joined = join(values[::2], values[1::2])
    return np.concatenate([joined, np.full_like(joined, empty)])
