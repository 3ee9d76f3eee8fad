"""litdata: chunks written by `optimize`, a shuffled `StreamingDataset` and its `StreamingDataLoader`."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.peers.map_style import cut_tensors
from benchmarks.peers.task import Batch, Pixels, Task, open_triplets

_EPOCHS_IN_ONE = 1000.0


def prepare(task: Task) -> None:
    """Write pairs of arrays in chunks of 64 MB, the size in the library's own examples."""
    count = len(open_triplets(task)[0])
    import_module("litdata").optimize(
        fn=partial(_pair, task),
        inputs=list(range(count)),
        output_dir=str(task.folder / "chunks"),
        chunk_bytes="64MB",
        num_workers=1,
        mode="overwrite",
    )


def batches(task: Task) -> Iterator[Batch]:
    """Yield the batches of a thousand epochs in one: `subsample` above 1 repeats the samples."""
    litdata: Any = import_module("litdata")
    data = litdata.StreamingDataset(
        str(task.folder / "chunks"),
        shuffle=True,
        drop_last=True,
        subsample=_EPOCHS_IN_ONE,
        transform=partial(_cut, task),
    )
    return iter(litdata.StreamingDataLoader(data, batch_size=task.batch, num_workers=task.workers, drop_last=True))


def _pair(task: Task, index: int) -> dict[str, Pixels]:
    hr, network_input = open_triplets(task)
    return {"hr": np.array(hr[index]), "input": np.array(network_input[index])}


def _cut(task: Task, sample: dict[str, Pixels]) -> Batch:
    return cut_tensors(task, sample["hr"], sample["input"])
