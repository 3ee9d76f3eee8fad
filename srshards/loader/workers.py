"""Batches from worker processes, in order: an ordinary `DataLoader` over the steps, whose workers fill a ring buffer.

An item of the `DataLoader` is a chunk: the batches of a few consecutive steps. A chunk is fully determined by its
number, so its content does not depend on order, workers or resuming. Workers return only the slot of the chunk.
"""

import multiprocessing
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from time import perf_counter
from typing import Any, NamedTuple

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from srshards.errors import ArgumentError, ReportedError, WorkerDiedError
from srshards.loader.batches import BatchReader, DamagedRow, DamagedSample
from srshards.loader.memory import REDUCE_WORKER_MEMORY
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.queues import with_pipes
from srshards.loader.ring import FreeSlots, Ring, no_wait
from srshards.loader.to_device import Transfer
from srshards.process.fork_server import GROUP_SIGNALS, end_with_parent, start_fork_server
from srshards.process.shortages import too_many_workers
from srshards.sampling.chunks import Chunks, Rows
from srshards.shards.mapped import reading
from srshards.terminal.sizes import format_bytes

_FILES_PER_WORKER = 4  # descriptors that this process needs per worker


class _Failure(NamedTuple):
    """An error in a worker. Returned instead of raised, so that `DataLoader` does not wrap it in a traceback."""

    error: Exception


class _Assignment(NamedTuple):
    """Steps to read, the slot to write them to, and the steps that the same worker will read next."""

    steps: range
    slot: int
    next_steps: range


class _Filled(NamedTuple):
    """A chunk of `steps` steps that a worker has written to a slot."""

    steps: int
    slot: int
    damaged: tuple[DamagedRow, ...]


class _ChunkReader(Dataset[Any]):
    """A dataset whose items, indexed by `_Assignment`, are chunks written to a slot of the ring."""

    def __init__(self, reader: BatchReader, rows: range, ring: Ring) -> None:
        self._reader = reader
        self._rows = rows
        self._ring = ring

    def __getitem__(self, item: "_Assignment") -> _Filled | _Failure:
        to = self._reader.lay_out(self._ring.slot(item.slot), len(item.steps), len(self._rows))
        try:
            with reading(self._reader.origin):
                damaged = self._reader.read(item.steps, self._rows, to, item.next_steps)
            return _Filled(len(item.steps), item.slot, damaged)
        except (ReportedError, MemoryError) as error:
            return _Failure(error)


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
        slots = self._chunks.num_slots(self._workers)
        try:
            ring, free = Ring(slots, self._chunks.num_bytes), FreeSlots(slots)
        except OSError as error:
            raise ArgumentError(
                f"cannot allocate {format_bytes(slots * self._chunks.num_bytes)} for batches ({error.strerror}); "
                f"{REDUCE_WORKER_MEMORY}"
            ) from error
        transfer = Transfer(ring, self._device)
        rows = self._rows.batch
        try:
            with closing(self._filled(ring, free)) as chunks:
                for filled in chunks:
                    start_s = perf_counter()
                    host = self._reader.lay_out(ring.slot(filled.slot), filled.steps, self._rows.per_step)
                    (hr, small), wait = transfer.send((torch.from_numpy(host.hr), torch.from_numpy(host.input)))
                    patches = zip(*(torch.split(images.flatten(0, 1), rows) for images in (hr, small)), strict=True)
                    self.wait_s += perf_counter() - start_s
                    for number, (batch_hr, batch_input) in enumerate(patches):
                        yield PatchBatch(batch_hr, batch_input, self._damage(filled.damaged, number))
                    free.give_back(filled.slot, wait)
        finally:
            transfer.close()

    def _damage(self, damaged: tuple[DamagedRow, ...], batch: int) -> tuple[DamagedSample, ...]:
        step, part = divmod(batch, self._rows.micro_batches)
        return tuple(each.damage for each in damaged if (each.step, each.row // self._rows.batch) == (step, part))

    def _filled(self, ring: Ring, free: FreeSlots) -> Generator[_Filled, None, None]:
        # A DataLoader draws a seed when it starts. It gets its own generator, so that the global random state does not
        # change, on the CPU, whatever the default device is.
        with _worker_errors(), torch.device("cpu"):
            chunks = iter(self._data_loader(ring, free))
        try:
            while True:
                start_s = perf_counter()
                with _worker_errors():
                    filled = next(chunks, None)
                if filled is None:
                    return
                if isinstance(filled, _Failure):
                    raise filled.error
                self.wait_s += perf_counter() - start_s
                yield filled
        finally:
            # Otherwise workers live as long as the traceback of an error.
            getattr(chunks, "_shutdown_workers", no_wait)()

    def _data_loader(self, ring: Ring, free: FreeSlots) -> "DataLoader[Any]":
        for_workers: dict[str, Any] = {}
        if self._workers:
            _check_workers(self._workers)
            for_workers = {
                "prefetch_factor": self._chunks.prefetch_factor,
                "multiprocessing_context": with_pipes(start_fork_server("srshards.loader.workers", GROUP_SIGNALS)),
                "worker_init_fn": _begin_worker,
            }
        return DataLoader(
            _ChunkReader(self._reader, self._rows.of_step, ring),
            batch_size=None,
            sampler=self._assignments(free),
            num_workers=self._workers,
            collate_fn=_identity,
            generator=torch.Generator("cpu"),
            **for_workers,
        )

    def _assignments(self, free: FreeSlots) -> Iterator[_Assignment]:
        """Yield one assignment per chunk. `DataLoader` requests the next, which takes a slot, when a worker is free."""
        for chunk in self._chunks.numbers(self._first, self._stop):
            steps, next_steps = (
                self._chunks.steps(number, self._first, self._stop) for number in (chunk, chunk + max(1, self._workers))
            )
            yield _Assignment(steps, free.take(), next_steps)


def _check_workers(workers: int) -> None:
    """Raise ArgumentError when the system lacks descriptors or semaphores for the workers.

    RuntimeError when this process cannot start child processes.
    """
    current = multiprocessing.current_process()
    main = sys.modules["__main__"]
    if getattr(main, "__file__", None) == "<stdin>" and main.__spec__ is None:
        raise RuntimeError(
            "data workers import the main program, which was read from stdin; write it to a file, or pass `workers` 0"
        )
    if getattr(current, "_inheriting", False):
        raise RuntimeError(
            "a data worker is importing the main module, which starts data workers itself; put code that must run once "
            'under `if __name__ == "__main__":`, or pass `workers` 0'
        )
    if current.daemon:
        raise RuntimeError(f"{current.name} is a daemonic process, which cannot start data workers; pass `workers` 0")
    if reason := too_many_workers(workers, _FILES_PER_WORKER, "`workers`"):
        raise ArgumentError(reason)
    try:
        multiprocessing.Lock()
    except OSError as error:
        raise ArgumentError(
            f"workers need semaphores, which cannot be created in /dev/shm ({error.strerror or error}); make it "
            "writable, or pass `workers` 0"
        ) from error


def _begin_worker(worker: int) -> None:
    cv2.setNumThreads(1)  # flipping a patch takes less time than waking a thread
    end_with_parent()


def _identity(item: Any) -> Any:
    return item


@contextmanager
def _worker_errors() -> Iterator[None]:
    """Convert the errors that `DataLoader` raises for a dead worker or its closed socket to WorkerDiedError."""
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader" not in str(error):  # e.g. a device error
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise WorkerDiedError(
            f"a data worker died ({lines[0]}); if the system killed it for lack of memory, use fewer `workers` or a "
            "smaller `prefetch`"
        ) from error
