"""This project's loader over shards of `shardgen generate`; the only module here that imports the project."""

from collections.abc import Iterator
from typing import Literal, cast

import srshards
from benchmarks.peers.task import Batch, Task

_ENDLESS = 10**9


def prepare(task: Task) -> None:
    """Nothing to prepare: the benchmark runs the generator."""


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches forever."""
    with make_loader(task) as loader:
        for batch in loader.steps(0, _ENDLESS):
            yield batch.hr, batch.input


def make_loader(task: Task) -> srshards.PatchLoader:
    """Return the loader of the task's batches."""
    return srshards.PatchLoader(
        srshards.open(task.store),
        task.patch,
        task.batch,
        input=cast(Literal["lr", "up"], task.input),
        workers=task.workers,
        patches_per_sample=task.crops,
        augment=task.variant == "augmented",  # no peer augments
    )


def samples_per_epoch(task: Task) -> int:
    """Return the number of triplets in the training split."""
    return len(srshards.open(task.store).train)
