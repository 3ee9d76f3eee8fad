"""LMDB, one value per image, read without a copy (`buffers=True`) in one transaction per worker.

Variants: `raw` (the pixels) and `png`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.peers import map_style
from benchmarks.peers.pictures import decode_png, encode_png
from benchmarks.peers.task import Batch, Pixels, Task, open_triplets, pairs

_MAP_BYTES = 1 << 40  # address space, not memory


def prepare(task: Task) -> None:
    """Write the images under the keys `000000.hr`, `000000.input`, ..."""
    encode: Callable[[Pixels], bytes] = encode_png if task.variant == "png" else _raw
    with _environment(task, map_size=_MAP_BYTES) as store:
        for index, pair in enumerate(pairs(task)):
            with store.begin(write=True) as transaction:
                for name, image in zip(("hr", "input"), pair, strict=True):
                    transaction.put(_key(index, name), encode(image))


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches forever."""
    with _environment(task, readonly=True, lock=False) as store:
        count = store.stat()["entries"] // 2
    return map_style.batches(task, count, partial(_open, task))


def _open(task: Task) -> Callable[[int], tuple[Pixels, Pixels]]:
    shapes = [images.shape[1:] for images in open_triplets(task)]
    transaction = _environment(task, readonly=True, lock=False, readahead=False).begin(buffers=True)

    def images(index: int) -> tuple[Pixels, Pixels]:
        values = [transaction.get(_key(index, name)) for name in ("hr", "input")]
        if task.variant == "png":
            return decode_png(values[0]), decode_png(values[1])
        hr, small = (np.frombuffer(value, np.uint8).reshape(shape) for value, shape in zip(values, shapes, strict=True))
        return hr, small

    return images


def _environment(task: Task, **options: Any) -> Any:
    return import_module("lmdb").open(str(task.folder / "lmdb"), **options)


def _key(index: int, name: str) -> bytes:
    return f"{index:06d}.{name}".encode()


def _raw(image: Pixels) -> bytes:
    return image.tobytes()
