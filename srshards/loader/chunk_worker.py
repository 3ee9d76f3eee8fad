"""A data worker: writes chunks to slots of the ring. It does not import PyTorch, which would take most of its start.

A chunk is the batches of a few consecutive steps. It is fully determined by its steps, so its content does not depend
on order, workers or resuming.
"""

import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import cv2

from srshards.errors import ReportedError
from srshards.loader.batches import BatchReader, DamagedRow
from srshards.loader.ring import Ring
from srshards.process.fork_server import end_with_parent
from srshards.shards.mapped import Origin, reading

_NAME = "srshards_worker"  # as shown by `ps` and `top`, which cut it after 15 characters


class Chunk(NamedTuple):
    """Steps to read, and the steps that the same worker will read next."""

    steps: range
    next_steps: range


class ChunkReader:
    """Writes chunks to the slots of a ring. `rows` are the rows of each global batch that are read."""

    def __init__(self, reader: BatchReader, rows: range, ring: Ring) -> None:
        self._reader = reader
        self._rows = rows
        self._ring = ring

    @property
    def origin(self) -> Origin:
        """The set of shards that is read."""
        return self._reader.origin

    def read(self, chunk: Chunk, slot: int) -> tuple[DamagedRow, ...]:
        """Write a chunk to a slot, and return the rows whose samples were replaced. RunError when a shard is bad."""
        to = self._reader.lay_out(self._ring.slot(slot), len(chunk.steps), len(self._rows))
        with reading(self._reader.origin):
            return self._reader.read(chunk.steps, self._rows, to, chunk.next_steps)


class Assignment(NamedTuple):
    """A chunk and its slot as plain integers: the pending assignments of a worker must fit in its pipe."""

    start: int
    stop: int
    next_start: int
    next_stop: int
    slot: int

    @classmethod
    def of(cls, chunk: Chunk, slot: int) -> "Assignment":
        return cls(chunk.steps.start, chunk.steps.stop, chunk.next_steps.start, chunk.next_steps.stop, slot)

    @property
    def chunk(self) -> Chunk:
        return Chunk(range(self.start, self.stop), range(self.next_start, self.next_stop))


class Failure(NamedTuple):
    """An error of a worker, to be raised in the training process."""

    error: Exception


def work(connection: "Connection[Any, Any]", reader: ChunkReader) -> None:
    """Run a worker: receive assignments, and send the rows that were replaced, or a `Failure`, until killed."""
    end_with_parent()
    cv2.setNumThreads(1)  # flipping a patch takes less time than waking a thread
    with suppress(OSError), open("/proc/self/comm", "w") as name:  # Linux only
        name.write(_NAME)
    while True:
        try:
            assignment = Assignment(*connection.recv())
        except (EOFError, OSError):  # the parent closed its end, or is dead
            return
        try:
            message: Any = reader.read(assignment.chunk, assignment.slot)
        except (ReportedError, MemoryError) as error:
            message = Failure(error)
        except Exception:  # a bug, or a library's own error, which may not survive pickling
            message = Failure(RuntimeError(f"an error in a data worker:\n{traceback.format_exc()}"))
        with suppress(OSError):
            connection.send(message)
