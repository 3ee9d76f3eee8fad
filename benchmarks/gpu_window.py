"""Steps between two moments at which the device had nothing left to do, long after the start."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, TypeVar

import torch

from trainer.training.device import describe_device

_T = TypeVar("_T")


@dataclass(frozen=True)
class Window:
    """How much is thrown away and how much is counted: both so many seconds and so many steps, unless it crawls."""

    warm_up_s: float
    warm_up_steps: int
    seconds: float
    steps: int
    at_most_s: float


def window_for(device: torch.device, seconds: float, ready: int) -> Window:
    """On a GPU the first steps search for kernels, fill the allocator and use up the `ready` batches that lie there."""
    if device.type == "cuda":
        return Window(warm_up_s=3.0, warm_up_steps=max(20, ready), seconds=seconds, steps=10, at_most_s=3 * seconds)
    return Window(warm_up_s=0.0, warm_up_steps=4, seconds=seconds, steps=2, at_most_s=float("inf"))


class Timed(Generic[_T]):
    """An iterator, and the seconds that were spent in it."""

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
    """What the window held. `step` gives its loss; `accounts` are seconds that were spent on this or that so far.

    The GPU is waited for at the ends of the window, and nowhere in between.
    """
    _take(step, window.warm_up_steps, window.warm_up_s, window.at_most_s, device)
    before = {name: account() for name, account in accounts.items()}
    steps, seconds, loss = _take(step, window.steps, window.seconds, window.at_most_s, device)
    return {
        "steps": steps,
        "seconds": seconds,
        **{name: account() - before[name] for name, account in accounts.items()},
        **_memory(device),
        "finite_loss": bool(loss.isfinite()),
        "device": describe_device(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _take(
    step: Callable[[], torch.Tensor], at_least: int, at_least_s: float, at_most_s: float, device: torch.device
) -> tuple[int, float, torch.Tensor]:
    """How many steps were done, how long they took, and the last one's loss."""
    synchronise(device)
    number, start_s = 0, perf_counter()
    while True:
        loss = step()
        number += 1
        seconds = perf_counter() - start_s
        if (number >= at_least and seconds >= at_least_s) or seconds >= at_most_s:
            break
    synchronise(device)
    return number, perf_counter() - start_s, loss


def _memory(device: torch.device) -> dict[str, int]:
    """Peak bytes: what PyTorch's tensors took on a GPU and what it had reserved for them; or this process's RSS."""
    if device.type == "cuda":
        allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"peak_allocated_bytes": allocated, "peak_memory_bytes": reserved}
    lines = Path("/proc/self/status").read_text().splitlines()
    return {"peak_memory_bytes": next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))}
