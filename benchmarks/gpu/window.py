"""Measure steps in windows that follow a warm-up and at whose ends the device is idle."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

import torch

from benchmarks.plan_million import peak_rss_bytes
from benchmarks.report import spread
from benchmarks.stream_measure import repeat

_T = TypeVar("_T")
_WINDOWS = 3


@dataclass(frozen=True)
class Window:
    """Lengths of the warm-up and of each window: minimum seconds and steps, and their maximum `at_most_s`."""

    warm_up_s: float
    warm_up_steps: int
    seconds: float
    steps: int
    at_most_s: float


def window_for(device: torch.device, seconds: float, ready: int) -> Window:
    """Return the windows. The warm-up covers kernel autotuning and allocation on a GPU, and the `ready` batches."""
    if device.type == "cuda":
        return Window(warm_up_s=0.5, warm_up_steps=max(10, ready), seconds=seconds, steps=3, at_most_s=4 * seconds)
    return Window(warm_up_s=0.0, warm_up_steps=1, seconds=seconds, steps=1, at_most_s=float("inf"))


class Timed(Generic[_T]):
    """An iterator that measures the seconds spent in it."""

    def __init__(self, items: Iterator[_T]) -> None:
        self.seconds = 0.0
        self._items = items

    def __iter__(self) -> "Timed[_T]":
        return self

    def __next__(self) -> _T:
        start_s = perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += perf_counter() - start_s


def measure_steps(
    step: Callable[[], torch.Tensor],
    batch: int,
    window: Window,
    device: torch.device,
    shares: Mapping[str, Callable[[], float]],
) -> dict[str, Any]:
    """Measure the steps of the windows. `step` trains on `batch` patches and returns its loss.

    Returns the spreads of patches per second, ms per step and of each of the `shares`, which return seconds so far, as
    fractions of a window; the number of steps, the peak memory, and whether the last loss is finite. The host waits for
    the device at the ends of a window only.
    """
    losses: deque[torch.Tensor] = deque(maxlen=1)

    def take(at_least: int, at_least_s: float) -> tuple[int, float]:
        synchronise(device)
        start_s = perf_counter()
        number, _ = repeat(lambda: losses.append(step()), at_least, at_least_s, window.at_most_s)
        synchronise(device)
        return number, perf_counter() - start_s

    take(window.warm_up_steps, window.warm_up_s)
    steps, seconds = [], []
    of_window: dict[str, list[float]] = {name: [] for name in shares}
    for _ in range(_WINDOWS):
        before = {name: share() for name, share in shares.items()}
        number, length_s = take(window.steps, window.seconds)
        steps.append(number)
        seconds.append(length_s)
        for name, share in shares.items():
            of_window[name].append((share() - before[name]) / length_s)
    pairs = list(zip(steps, seconds, strict=True))
    return {
        "patches_per_second": spread([batch * number / length_s for number, length_s in pairs], 1),
        "step_ms": spread([1000 * length_s / number for number, length_s in pairs], 3),
        **{name: spread(values, 4) for name, values in of_window.items()},
        "steps": steps,
        "peak_memory_bytes": peak_memory_bytes(device),
        "finite_loss": bool(losses[0].isfinite()),
    }


def synchronise(device: torch.device) -> None:
    """Wait until a GPU is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak: reserved by PyTorch on a GPU since the last reset, or resident in this process."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_rss_bytes()
