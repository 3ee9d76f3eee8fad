"""This project's loader, as `trainer/run.py` makes it. The only module here that imports the project.

The store is a folder of shards that `shardgen generate` made.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.peers.task import Batch, Task
from srshards.loader.batches import BatchReader
from srshards.loader.workers import WorkerBatches
from srshards.sampling.chunks import Rows
from srshards.sampling.patches import NUM_TURNS, PatchGrid
from srshards.sampling.schedule import Schedule
from srshards.shards.opening import open_shards
from trainer.training.config import TrainConfig

_SEED = 0
_ENDLESS = 10**9


def prepare(task: Task) -> None:
    """The benchmark itself runs the generator, before any way is prepared."""


def batches(task: Task) -> Iterator[Batch]:
    """Endless batches."""
    for batch in make_loader(task, _ENDLESS).started():
        yield batch.hr, batch.input


def make_loader(task: Task, stop: int) -> WorkerBatches:
    """The loader of batches 0 .. stop-1."""
    folder = open_shards(Path(task.store))
    schedule = Schedule(
        [record.samples for record in folder.train.records],
        [record.bytes for record in folder.train.records],
        _SEED,
        task.batch,
        task.crops,
    )
    size = folder.scale if task.input == "lr" else 1
    turns = NUM_TURNS if task.variant == "turned" else 1  # no peer turns its patches
    reader = BatchReader(
        shards=[(folder.tar(record), record.samples) for record in folder.train.records],
        codec=folder.codec,
        schedule=schedule,
        grid=PatchGrid(folder.hr_size, folder.scale, task.patch, size, turns),
        input_names=folder.inputs(task.input),
        seed=_SEED,
    )
    return WorkerBatches(reader, Rows(task.batch), 0, stop, task.workers, TrainConfig.prefetch, torch.device("cpu"))


def samples_per_epoch(task: Task) -> int:
    """Triplets of the training split."""
    return len(open_shards(Path(task.store)).train)
