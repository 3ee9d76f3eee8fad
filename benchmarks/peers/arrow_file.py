"""An Arrow IPC file of raw pixels: two fixed-size binary columns, memory mapped, read without a copy."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.peers import map_style
from benchmarks.peers.task import Batch, Pixels, Task, open_triplets, pairs

_ROWS_PER_RECORD_BATCH = 50


def prepare(task: Task) -> None:
    """Write `images.arrow`, with several rows per record batch."""
    pa: Any = import_module("pyarrow")
    sizes = [images[0].nbytes for images in open_triplets(task)]
    schema = pa.schema([(name, pa.binary(size)) for name, size in zip(("hr", "input"), sizes, strict=True)])
    rows: list[tuple[bytes, bytes]] = []
    with pa.OSFile(str(task.folder / "images.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for hr, small in pairs(task):
            rows.append((hr.tobytes(), small.tobytes()))
            if len(rows) == _ROWS_PER_RECORD_BATCH:
                writer.write_batch(_record_batch(pa, rows, schema))
                rows.clear()
        if rows:
            writer.write_batch(_record_batch(pa, rows, schema))


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches forever."""
    return map_style.batches(task, _table(task).num_rows, partial(_open, task))


def _open(task: Task) -> Callable[[int], tuple[Pixels, Pixels]]:
    shapes = [images.shape[1:] for images in open_triplets(task)]
    table = _table(task)
    columns = [(table.column(name), shape) for name, shape in zip(("hr", "input"), shapes, strict=True)]

    def images(index: int) -> tuple[Pixels, Pixels]:
        hr, small = (np.frombuffer(column[index].as_buffer(), np.uint8).reshape(shape) for column, shape in columns)
        return hr, small

    return images


def _table(task: Task) -> Any:
    pa: Any = import_module("pyarrow")
    return pa.ipc.open_file(pa.memory_map(str(task.folder / "images.arrow"))).read_all()


def _record_batch(pa: Any, rows: list[tuple[bytes, bytes]], schema: Any) -> Any:
    columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)]
    return pa.record_batch(columns, schema=schema)
