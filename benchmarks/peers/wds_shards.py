"""WebDataset: tars read sequentially, shards drawn at random, a shuffle buffer, `WebLoader` with workers.

Variants: `raw` (npy members, viewed without a copy) and `png` (`decode("rgb8")`). The tars contain HR and input images
only. `resampled=True` has no epochs, so nothing is restarted.
"""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np

from benchmarks.peers.map_style import cut_tensors
from benchmarks.peers.pictures import encode_png
from benchmarks.peers.task import Batch, Pixels, Task, open_triplets, pairs

_SAMPLES_PER_SHARD = 50
_SHUFFLE = 100  # samples in the buffer of each worker
_NPY_HEADER_BYTES = 128


def prepare(task: Task) -> None:
    """Write `shard-000000.tar`, ... with `hr` and `input` images."""
    wds: Any = import_module("webdataset")
    pattern = str(task.folder / "shard-%06d.tar")
    with wds.ShardWriter(pattern, maxcount=_SAMPLES_PER_SHARD, verbose=0) as writer:
        for index, (hr, small) in enumerate(pairs(task)):
            encode, kind = (encode_png, "png") if task.variant == "png" else (_npy, "npy")
            writer.write({"__key__": f"{index:06d}", f"hr.{kind}": encode(hr), f"input.{kind}": encode(small)})


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches forever."""
    wds: Any = import_module("webdataset")
    urls = sorted(map(str, task.folder.glob("*.tar")))
    data = wds.WebDataset(urls, resampled=True, shardshuffle=False).shuffle(_SHUFFLE)
    if task.variant == "png":
        data = data.decode("rgb8").to_tuple("hr.png", "input.png").map(partial(_cut, task))
    else:
        shapes = [images.shape[1:] for images in open_triplets(task)]
        data = data.to_tuple("hr.npy", "input.npy").map(partial(_cut_npy, task, shapes))
    return iter(wds.WebLoader(data.batched(task.batch, partial=False), batch_size=None, num_workers=task.workers))


def _cut(task: Task, images: tuple[Pixels, Pixels]) -> Batch:
    return cut_tensors(task, *images)


def _cut_npy(task: Task, shapes: list[tuple[int, ...]], members: tuple[bytes, bytes]) -> Batch:
    hr, small = (
        np.frombuffer(member, np.uint8, offset=_NPY_HEADER_BYTES).reshape(shape)
        for member, shape in zip(members, shapes, strict=True)
    )
    return _cut(task, (hr, small))


def _npy(image: Pixels) -> bytes:
    file = BytesIO()
    np.save(file, image)
    return file.getvalue()
