"""FFCV: a `.beton` file of raw pixels, os_cache, random order, threads, a compiled decoder that crops while it reads.

HR and input image are one array of two, so that one random position applies to both. Numba compiles the decoder in each
process.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.peers.task import SCALE, Batch, Pixels, Task, open_triplets

_EPOCHS_IN_ONE = 1000  # repeated indices, because every epoch creates new threads and buffers


def prepare(task: Task) -> None:
    """Write `images.beton`."""
    images = _Pairs(task)
    field = import_module("ffcv.fields").NDArrayField(np.dtype("uint8"), images[0][0].shape)
    writer = import_module("ffcv.writer").DatasetWriter(
        str(task.folder / "images.beton"), {"pair": field}, num_workers=1
    )
    writer.from_indexed_dataset(images)


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches forever. As usual with FFCV, a batch is overwritten some batches later."""
    loader: Any = import_module("ffcv.loader")
    count, shape = len(_Pairs(task)), _Pairs(task)[0][0].shape
    batches = loader.Loader(
        str(task.folder / "images.beton"),
        batch_size=task.batch,
        num_workers=task.workers,
        order=loader.OrderOption.RANDOM,
        os_cache=True,
        indices=np.tile(np.arange(count, dtype=np.uint64), _EPOCHS_IN_ONE),
        pipelines={"pair": [_cut_decoder(shape, task.patch)]},
        drop_last=True,
    )
    while True:
        for (pairs,) in batches:
            yield pairs[:, 0], pairs[:, 1]


class _Pairs:
    """HR and input image of a sample as one 2 x size x size x 3 uint8 array, in a tuple of one field."""

    def __init__(self, task: Task) -> None:
        self._images = open_triplets(task)

    def __len__(self) -> int:
        return len(self._images[0])

    def __getitem__(self, index: int) -> tuple[Pixels]:
        return (np.stack([images[index] for images in self._images]),)


def _cut_decoder(shape: tuple[int, ...], patch: int) -> Any:
    """Return a replacement for NDArrayField's decoder, which would copy complete images."""
    compiler: Any = import_module("ffcv.pipeline.compiler").Compiler
    query: Any = import_module("ffcv.pipeline.allocation_query").AllocationQuery
    num_images, size = shape[0], shape[1]
    places, row_bytes, line_bytes, image_bytes = (size - patch) // SCALE + 1, 3 * patch, 3 * size, 3 * size * size

    class CutDecoder(import_module("ffcv.fields.ndarray").NDArrayDecoder):  # type: ignore[misc]
        def declare_state_and_memory(self, previous_state: Any) -> Any:
            out = (num_images, patch, patch, 3)
            state = replace(previous_state, jit_mode=True, shape=out, dtype=np.dtype("uint8"))
            return state, query(out, np.dtype("uint8"))

        def generate_code(self) -> Callable[..., Any]:
            threads, read = compiler.get_iterator(), self.memory_read
            memcpy = compiler.compile(import_module("ffcv.libffcv").memcpy)

            def decode(indices: Any, into: Any, metadata: Any, storage: Any) -> Any:
                for row in threads(indices.shape[0]):
                    pixels = read(metadata[indices[row]], storage)
                    lines = into[row].reshape(-1, row_bytes)
                    top, left = SCALE * np.random.randint(places), SCALE * np.random.randint(places)
                    for image in range(num_images):
                        start = image * image_bytes + top * line_bytes + 3 * left
                        for line in range(patch):
                            memcpy(pixels[start : start + row_bytes], lines[image * patch + line])
                            start += line_bytes
                return into

            decode.is_parallel = True  # type: ignore[attr-defined]
            return decode

    return CutDecoder()
