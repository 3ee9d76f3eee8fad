"""Shared by cases with random access: PyTorch's `DataLoader` over a map-style dataset."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from benchmarks.peers.task import Batch, Pixels, Task, cut

# Opens the store in the calling process; returns a function from sample number to images (size x size x 3 uint8).
Open = Callable[[], Callable[[int], tuple[Pixels, Pixels]]]


class EndlessShuffle(Sampler[int]):
    """Concatenated permutations, so that no case has to restart its workers or its queue at the end of an epoch."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from random.sample(range(self._count), self._count)


class Crops(Dataset[Any]):
    """Random crops. Item n is a pair of patches as new tensors; a list of numbers gives a pair of batches."""

    def __init__(self, task: Task, open_store: Open) -> None:
        self._task = task
        self._open_store = open_store
        self._images: Callable[[int], tuple[Pixels, Pixels]] | None = None

    def __getitem__(self, index: int | list[int]) -> Batch:
        if self._images is None:  # in the worker, because neither maps nor databases should be forked
            self._images = self._open_store()
        if isinstance(index, list):
            return self._assembled([cut(self._task, *self._images(number)) for number in index])
        return cut_tensors(self._task, *self._images(index))

    @staticmethod
    def _assembled(patches: list[tuple[Pixels, Pixels]]) -> Batch:
        hr, small = (torch.empty((len(patches), *patch.shape), dtype=torch.uint8) for patch in patches[0])
        for images, into in zip(zip(*patches, strict=True), (hr.numpy(), small.numpy()), strict=True):
            for row, patch in enumerate(images):
                into[row] = patch
        return hr, small


def batches(task: Task, count: int, open_store: Open, assembled: bool = False) -> Iterator[Batch]:
    """Yield batches of a default `DataLoader`: samples collated in the worker, passed through shared memory.

    With `assembled`, the worker receives all numbers of a batch at once and writes one pair of tensors.
    """
    data, order = Crops(task, open_store), EndlessShuffle(count)
    if assembled:
        sampler = torch.utils.data.BatchSampler(order, task.batch, drop_last=True)
        yield from DataLoader(data, batch_size=None, sampler=sampler, num_workers=task.workers)
    else:
        yield from DataLoader(data, task.batch, sampler=order, num_workers=task.workers, drop_last=True)


def cut_tensors(task: Task, hr: Pixels, small: Pixels) -> Batch:
    """Return the patches of `cut` as new tensors."""
    patch, small_patch = cut(task, hr, small)
    return torch.from_numpy(np.ascontiguousarray(patch)), torch.from_numpy(np.ascontiguousarray(small_patch))
