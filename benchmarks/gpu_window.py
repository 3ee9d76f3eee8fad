"""Measure steps in a window that starts after a warm-up and at whose ends the device is idle."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

import torch

from benchmarks.plan_million import peak_rss_bytes
from benchmarks.stream_measure import repeat
from trainer.training.device import describe_device

_T = TypeVar("_T")


@dataclass(frozen=True)
class Window:
    """Lengths of the warm-up and of the measurement: minimum seconds and steps, and the maximum `at_most_s`."""

    warm_up_s: float
    warm_up_steps: int
    seconds: float
    steps: int
    at_most_s: float


def window_for(device: torch.device, seconds: float, ready: int) -> Window:
    """Return the window. The warm-up covers kernel autotuning and allocation on a GPU, and the `ready` batches."""
    if device.type == "cuda":
        return Window(warm_up_s=1.5, warm_up_steps=max(20, ready), seconds=seconds, steps=10, at_most_s=3 * seconds)
    return Window(warm_up_s=0.0, warm_up_steps=4, seconds=seconds, steps=2, at_most_s=float("inf"))


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
    step: Callable[[], torch.Tensor], window: Window, device: torch.device, accounts: dict[str, Callable[[], float]]
) -> dict[str, Any]:
    """Measure the steps of the window. `step` returns its loss; `accounts` return seconds accumulated so far, by name.

    The host waits for the GPU at the ends of the window only.
    """
    losses: deque[torch.Tensor] = deque(maxlen=1)

    def take(at_least: int, at_least_s: float) -> tuple[int, float]:
        synchronise(device)
        start_s = perf_counter()
        number, _ = repeat(lambda: losses.append(step()), at_least, at_least_s, window.at_most_s)
        synchronise(device)
        return number, perf_counter() - start_s

    take(window.warm_up_steps, window.warm_up_s)
    before = {name: account() for name, account in accounts.items()}
    steps, seconds = take(window.steps, window.seconds)
    return {
        "steps": steps,
        "seconds": seconds,
        **{name: account() - before[name] for name, account in accounts.items()},
        **_memory(device),
        "finite_loss": bool(losses[0].isfinite()),
        "device": describe_device(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def synchronise(device: torch.device) -> None:
    """Wait until a GPU is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> dict[str, int]:
    """Return peak bytes: allocated and reserved by PyTorch on a GPU, or resident in this process."""
    if device.type == "cuda":
        allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"peak_allocated_bytes": allocated, "peak_memory_bytes": reserved}
    return {"peak_memory_bytes": peak_rss_bytes()}
