"""Batches counted between two moments at which one was taken, long after the start.

A clock that starts with the first batch counts those that lay ready as if they had cost nothing, so a stretch that is
well beyond every prefetch (in batches and in seconds) is thrown away first. NumPy and the standard library only: this
runs in the environments of all libraries.
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
    """How much is thrown away and how much is counted. A slow way goes on until it has `batches` batches."""

    seconds: float = 3.0
    batches: int = 24
    warm_up_s: float = 1.0
    warm_up_batches: int = 16
    at_most_s: float = 60.0


@dataclass(frozen=True)
class Counted:
    """What the window held. `main_cpu` is CPU seconds of this process and its threads (not its children) per second.

    `disk_bytes` is what this process and those below it read from a disk meanwhile: 0 when the page cache had it all.
    """

    batches: int
    seconds: float
    main_cpu: float
    disk_bytes: int


def count(batches: Iterator[Any], window: Window, touch: Callable[[Any], object]) -> Counted:
    """Take batches, call `touch` with each, and count those of the window."""
    _take(batches, window.warm_up_batches, window.warm_up_s, window.at_most_s, touch)
    disk, cpu_s = disk_bytes_read(), process_time()
    number, seconds = _take(batches, window.batches, window.seconds, window.at_most_s, touch)
    main_cpu = (process_time() - cpu_s) / seconds
    return Counted(number, seconds, main_cpu, disk_bytes_read() - disk)


def _take(
    batches: Iterator[Any], at_least: int, at_least_s: float, at_most_s: float, touch: Callable[[Any], object]
) -> tuple[int, float]:
    """How many were taken and handled, and how long that took."""
    number, start_s = 0, perf_counter()
    while True:
        touch(next(batches))
        number += 1
        seconds = perf_counter() - start_s
        if (number >= at_least and seconds >= at_least_s) or seconds >= at_most_s:
            return number, seconds


class CopyOut:
    """Copies each batch into the same two arrays, as a training loop does that has memory of its own for them."""

    def __init__(self) -> None:
        self._into: list[Any] = []

    def __call__(self, batch: Any) -> None:
        pair = [np.asarray(images) for images in batch]
        if not self._into:
            self._into = [np.zeros_like(images, order="C") for images in pair]
        for into, images in zip(self._into, pair, strict=True):
            np.copyto(into, images)


def leave(batch: Any) -> None:
    """Nothing: the batch is left untouched."""


def check(batch: Any, rows: int, patch: int, small_patch: int) -> None:
    """ValueError unless a batch is N pairs of aligned patches that differ from row to row."""
    hr, small = (np.asarray(images) for images in batch)
    shapes = (rows, patch, patch, 3), (rows, small_patch, small_patch, 3)
    if (hr.shape, small.shape) != shapes or hr.dtype != np.uint8 or small.dtype != np.uint8:
        raise ValueError(f"expected uint8 batches {shapes}, got {hr.dtype} {hr.shape}, {small.dtype} {small.shape}")
    ratio = patch // small_patch
    large = small.repeat(ratio, axis=1).repeat(ratio, axis=2).astype(np.int16)
    apart, strangers = (float(np.abs(images - large).mean()) for images in (hr, np.roll(hr, 1, axis=0)))
    if not apart < strangers / 2:
        raise ValueError(f"HR and input do not show the same: {apart:.1f} apart, other rows {strangers:.1f}")


def disk_bytes_read() -> int:
    """Bytes that this process and all below it have had fetched from a disk; processes that ended do not count."""
    return sum(_read_bytes(pid) for pid in [os.getpid(), *_descendants()])


def _read_bytes(pid: int) -> int:
    try:
        lines = (PROCESS / str(pid) / "io").read_text().splitlines()
    except OSError:  # it has ended, or is not ours to look at
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def _descendants() -> list[int]:
    below: dict[int, list[int]] = {}
    for path in PROCESS.glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        below.setdefault(int(words[1]), []).append(int(path.parent.name))
    found, todo = [], [os.getpid()]
    while todo:
        children = below.get(todo.pop(), [])
        found += children
        todo += children
    return found
