"""MosaicML streaming: MDS shards in a local folder, shuffled, `StreamingDataLoader` with workers.

Variants: `raw` (arrays of a fixed shape) and `png`. The stream is repeated, so that an epoch does not end.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch

from benchmarks.peers.map_style import cut_tensors
from benchmarks.peers.task import Batch, Task, open_triplets, pairs

_EPOCHS_IN_ONE = 1000
_OPERATORS = ("nms", "qnms")  # looked up when torchvision is imported


def prepare(task: Task) -> None:
    """Write MDS shards of the default size, uncompressed because they are local."""
    sizes = [",".join(map(str, images.shape[1:])) for images in open_triplets(task)]
    kinds = ["png" if task.variant == "png" else f"ndarray:uint8:{size}" for size in sizes]
    columns = dict(zip(("hr", "input"), kinds, strict=True))
    wrap: Any = import_module("PIL.Image").fromarray if task.variant == "png" else np.asarray
    with _streaming().MDSWriter(out=str(task.folder / "mds"), columns=columns, exist_ok=True) as writer:
        for hr, small in pairs(task):
            writer.write({"hr": wrap(hr), "input": wrap(small)})


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches of a thousand epochs."""
    streaming = _streaming()
    streaming.base.util.clean_stale_shared_memory()  # of runs that were killed

    base: Any = streaming.StreamingDataset

    class Patches(base):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> Batch:
            sample = super().__getitem__(index)
            return cut_tensors(task, np.asarray(sample["hr"]), np.asarray(sample["input"]))

    stream = streaming.Stream(local=str(task.folder / "mds"), repeat=_EPOCHS_IN_ONE)
    data = Patches(streams=[stream], batch_size=task.batch, shuffle=True)
    return iter(streaming.StreamingDataLoader(data, batch_size=task.batch, num_workers=task.workers, drop_last=True))


def _streaming() -> Any:
    """Import the library. It imports torchvision, whose compiled part does not load with a CPU build of PyTorch.

    That part is not used here, so its operators are declared without an implementation to let the import succeed.
    """
    try:
        import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in _OPERATORS:
            torch.library.define(f"torchvision::{name}", "() -> Tensor")
    return import_module("streaming")
