"""Batches from worker processes, in order: workers fill the slots of a ring, and this process sends them to the device.

`slots.py` has the protocol, `worker_pool.py` the processes, `to_device.py` the transfer.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain
from time import perf_counter

import torch

from srshards.errors import ArgumentError
from srshards.loader.batches import BatchReader, DamagedRow, DamagedSample
from srshards.loader.chunk_worker import Chunk, ChunkReader
from srshards.loader.memory import REDUCE_WORKER_MEMORY
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.ring import Ring
from srshards.loader.slots import Wait, deliver
from srshards.loader.to_device import Transfer
from srshards.loader.worker_pool import ThisProcess, WorkerPool
from srshards.sampling.chunks import Chunks, Rows
from srshards.terminal.sizes import format_bytes


class WorkerBatches:
    """The batches of steps first .. stop-1 from worker processes, and the time spent waiting for them.

    Each iteration has its own ring, so no other iteration can overwrite a batch. Taking a batch raises ArgumentError
    when there is no memory for the ring or workers cannot be started, RunError when a shard cannot be read,
    WorkerDiedError when a worker died, MemoryError when out of memory.
    """

    def __init__(
        self,
        reader: BatchReader,
        rows: Rows,
        first: int,
        stop: int,
        workers: int,
        prefetch: int,
        device: torch.device,
    ) -> None:
        self.wait_s = 0.0  # for all batches but the first
        self._reader = reader
        self._rows = rows
        self._chunks = Chunks.of(rows, reader.grid, reader.codec, reader.schedule.patches_per_sample, prefetch)
        self._first, self._stop = first, stop
        self._workers = workers
        self._device = device

    def started(self) -> Iterator[PatchBatch]:
        """Wait for the first batch, then return an iterator. Starting the workers does not count as waiting."""
        batches = self._batches()
        first = next(batches, None)
        self.wait_s = 0.0
        return batches if first is None else chain([first], batches)

    def _batches(self) -> Iterator[PatchBatch]:
        num_slots = self._chunks.num_slots(self._workers)
        with _allocating(num_slots * self._chunks.num_bytes):
            ring = Ring(num_slots, self._chunks.num_bytes)
        reader = ChunkReader(self._reader, self._rows.of_step, ring)
        with closing(WorkerPool(reader, self._workers) if self._workers else ThisProcess(reader)) as filler:
            with _allocating(ring.num_bytes):  # while the workers start
                ring.allocate()
            with closing(Transfer(ring, self._device)) as transfer:
                sender = _Sender(ring, transfer, self._reader, self._rows)
                chunks = deliver(self._work(), num_slots, filler, sender.send)
                while True:
                    start_s = perf_counter()
                    batches = next(chunks, None)
                    self.wait_s += perf_counter() - start_s
                    if batches is None:
                        return
                    yield from batches

    def _work(self) -> Iterator[Chunk]:
        for number in self._chunks.numbers(self._first, self._stop):
            numbers = (number, number + max(1, self._workers))  # the workers take turns
            yield Chunk(*(self._chunks.steps(each, self._first, self._stop) for each in numbers))


class _Sender:
    """Sends the content of slots to the device. Views of a slot are made once, and on a CPU are its batches."""

    def __init__(self, ring: Ring, transfer: Transfer, reader: BatchReader, rows: Rows) -> None:
        self._ring = ring
        self._transfer = transfer
        self._reader = reader
        self._rows = rows
        # By slot and number of steps: the last chunk may have fewer than the others.
        self._images: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self._batches: dict[tuple[int, int], list[PatchBatch]] = {}

    def send(self, chunk: Chunk, slot: int, damaged: tuple[DamagedRow, ...]) -> tuple[list[PatchBatch], Wait]:
        """Return the batches of a chunk, and a function that waits until its slot may be written again."""
        key = slot, len(chunk.steps)
        if key not in self._images:
            host = self._reader.lay_out(self._ring.slot(slot), len(chunk.steps), self._rows.per_step)
            self._images[key] = torch.from_numpy(host.hr).flatten(0, 1), torch.from_numpy(host.input).flatten(0, 1)
        sent, wait = self._transfer.send(self._images[key])
        if sent is not self._images[key]:
            batches = self._split(sent)
        elif key in self._batches:
            batches = self._batches[key]
        else:
            batches = self._batches[key] = self._split(sent)
        if damaged:
            batches = [batch._replace(damaged=self._damage(damaged, number)) for number, batch in enumerate(batches)]
        return batches, wait

    def _split(self, images: tuple[torch.Tensor, ...]) -> list[PatchBatch]:
        hr, small = (torch.split(image, self._rows.batch) for image in images)
        return [PatchBatch(*pair, ()) for pair in zip(hr, small, strict=True)]

    def _damage(self, damaged: tuple[DamagedRow, ...], batch: int) -> tuple[DamagedSample, ...]:
        step, part = divmod(batch, self._rows.micro_batches)
        return tuple(each.damage for each in damaged if (each.step, each.row // self._rows.batch) == (step, part))


@contextmanager
def _allocating(num_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArgumentError(
            f"cannot allocate {format_bytes(num_bytes)} for batches ({error.strerror}); {REDUCE_WORKER_MEMORY}"
        ) from error
