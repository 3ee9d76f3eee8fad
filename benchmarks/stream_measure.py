"""Count batches in a window that starts at a batch, after a warm-up.

A clock that starts with the first batch would count the batches that were prefetched as free, so everything up to well
beyond the prefetched batches is discarded first. NumPy and the standard library only: this module runs in the
environments of all libraries.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

PROCESS = Path("/proc")


@dataclass(frozen=True)
class Window:
    """Lengths of the warm-up and of the measurement: minimum seconds and batches, and the maximum `at_most_s`."""

    seconds: float = 3.0
    batches: int = 24
    warm_up_s: float = 1.0
    warm_up_batches: int = 16
    at_most_s: float = 60.0


@dataclass(frozen=True)
class Counted:
    """Result of a window. `main_cpu` is CPU seconds per second of this process and its threads, without children.

    `disk_bytes` is what this process and its descendants read from disk: 0 when everything was in the page cache.
    """

    batches: int
    seconds: float
    main_cpu: float
    disk_bytes: int


def count(batches: Iterator[Any], window: Window, touch: Callable[[Any], object]) -> Counted:
    """Take batches, call `touch` with each, and count those in the window."""

    def step() -> None:
        touch(next(batches))

    repeat(step, window.warm_up_batches, window.warm_up_s, window.at_most_s)
    disk, cpu_s = disk_bytes_read(), process_time()
    number, seconds = repeat(step, window.batches, window.seconds, window.at_most_s)
    main_cpu = (process_time() - cpu_s) / seconds
    return Counted(number, seconds, main_cpu, disk_bytes_read() - disk)


def repeat(step: Callable[[], object], at_least: int, at_least_s: float, at_most_s: float) -> tuple[int, float]:
    """Call `step` at least `at_least` times and `at_least_s` seconds; return the number of calls and their seconds."""
    number, start_s = 0, perf_counter()
    while True:
        step()
        number += 1
        seconds = perf_counter() - start_s
        if (number >= at_least and seconds >= at_least_s) or seconds >= at_most_s:
            return number, seconds


class CopyOut:
    """Copies each batch into the same two arrays, like a training loop that fills its own buffers."""

    def __init__(self) -> None:
        self._into: list[Any] = []

    def __call__(self, batch: Any) -> None:
        pair = [np.asarray(images) for images in batch]
        if not self._into:
            self._into = [np.zeros_like(images, order="C") for images in pair]
        for into, images in zip(self._into, pair, strict=True):
            np.copyto(into, images)


def leave(batch: Any) -> None:
    """Leave the batch untouched."""


def check(batch: Any, rows: int, patch: int, small_patch: int) -> None:
    """Check that a batch is N pairs of aligned patches that differ from row to row; ValueError otherwise."""
    hr, small = (np.asarray(images) for images in batch)
    shapes = (rows, patch, patch, 3), (rows, small_patch, small_patch, 3)
    if (hr.shape, small.shape) != shapes or hr.dtype != np.uint8 or small.dtype != np.uint8:
        raise ValueError(f"expected uint8 batches {shapes}, got {hr.dtype} {hr.shape}, {small.dtype} {small.shape}")
    ratio = patch // small_patch
    large = small.repeat(ratio, axis=1).repeat(ratio, axis=2).astype(np.int16)
    same_row, other_row = (float(np.abs(images - large).mean()) for images in (hr, np.roll(hr, 1, axis=0)))
    if not same_row < other_row / 2:
        raise ValueError(f"HR and input are not aligned: mean difference {same_row:.1f}, to other rows {other_row:.1f}")


def disk_bytes_read() -> int:
    """Return the bytes that this process and its living descendants have read from disk."""
    return sum(_read_bytes(pid) for pid in [os.getpid(), *_descendants()])


def _read_bytes(pid: int) -> int:
    try:
        lines = (PROCESS / str(pid) / "io").read_text().splitlines()
    except OSError:  # exited, or not readable for this user
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for path in PROCESS.glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [os.getpid()]
    for pid in found:  # grows while it is iterated
        found += children.get(pid, [])
    return found[1:]
