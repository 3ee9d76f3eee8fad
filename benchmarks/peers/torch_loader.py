"""Plain PyTorch: a `DataLoader` over crops of one memory-mapped npy array per type of image.

Variants: `samples` (collated by the worker from one tensor per sample) and `assembled` (one pair of tensors).
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benchmarks.peers import map_style
from benchmarks.peers.task import Batch, Pixels, Task, open_triplets


def prepare(task: Task) -> None:
    """Copy the two arrays, so that this case does not share the page cache with others."""
    for name, images in zip(("hr", "input"), open_triplets(task), strict=True):
        np.save(task.folder / f"{name}.npy", images)


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches forever."""
    count = len(np.load(task.folder / "hr.npy", mmap_mode="r"))
    return map_style.batches(task, count, partial(_open, task), assembled=task.variant == "assembled")


def _open(task: Task) -> Callable[[int], tuple[Pixels, Pixels]]:
    # Without the type np.memmap, whose every slice runs Python code.
    hr, small = (np.load(task.folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in ("hr", "input"))
    return lambda index: (hr[index], small[index])
