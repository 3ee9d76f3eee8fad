"""This project's loader. The only module here that imports the project.

The store is a folder of shards that `shardgen generate` made.
"""

from collections.abc import Iterator
from typing import Literal, cast

import srshards
from benchmarks.peers.task import Batch, Task

_ENDLESS = 10**9


def prepare(task: Task) -> None:
    """The benchmark itself runs the generator, before any way is prepared."""


def batches(task: Task) -> Iterator[Batch]:
    """Endless batches."""
    with make_loader(task) as loader:
        for batch in loader.steps(0, _ENDLESS):
            yield batch.hr, batch.input


def make_loader(task: Task) -> srshards.PatchLoader:
    """The loader of the task's batches."""
    return srshards.PatchLoader(
        srshards.open(task.store),
        task.patch,
        task.batch,
        input=cast(Literal["lr", "up"], task.input),
        workers=task.workers,
        patches_per_sample=task.crops,
        augment=task.variant == "turned",  # no peer turns its patches
    )


def samples_per_epoch(task: Task) -> int:
    """Triplets of the training split."""
    return len(srshards.open(task.store).train)
