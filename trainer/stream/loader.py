"""Batches from worker processes, in order: an ordinary `DataLoader` over the steps.

The dataset's item number n is the micro-batch n of the run: everything about it follows from its number, so order,
workers and resuming cannot change what is in it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from shardgen.format import FormatError
from trainer.errors import RunError, UsageError
from trainer.stream.batches import BatchReader, Damage
from trainer.stream.fork_server import start_fork_server
from trainer.stream.mapped_shard import DamagedMember, mend

SHARED_MEMORY = Path("/dev/shm")
_SPARE_BATCHES = 2  # one being written by a worker, one in the hands of the training loop


class Batch(NamedTuple):
    """N x p x p x 3 uint8 HR patches and N x q x q x 3 uint8 input patches; `damaged` samples were replaced."""

    hr: torch.Tensor
    input: torch.Tensor
    damaged: tuple[Damage, ...]


class _Failure(NamedTuple):
    """What went wrong in a worker, None for too little memory. Returned, so that no traceback is wrapped around it."""

    message: str | None


@dataclass(frozen=True)
class Rows:
    """Which rows of each global batch this process trains on, and in how many micro-batches one after the other."""

    batch: int
    micro_batches: int = 1
    rank: int = 0
    ranks: int = 1

    @property
    def global_batch(self) -> int:
        return self.batch * self.micro_batches * self.ranks

    def of(self, micro_batch: int) -> tuple[int, int, int]:
        """Step, first row and the row behind the last, of a micro-batch counted through the whole run."""
        step, part = divmod(micro_batch, self.micro_batches)
        first = (self.rank * self.micro_batches + part) * self.batch
        return step, first, first + self.batch


class _MicroBatches(Dataset[Any]):
    def __init__(self, reader: BatchReader, rows: Rows) -> None:
        self._reader = reader
        self._rows = rows

    def __getitem__(self, micro_batch: int) -> Batch | _Failure:
        try:
            hr, small, damaged = self._reader.read(*self._rows.of(micro_batch))
        except (FormatError, OSError, DamagedMember) as error:
            return _Failure(f"{error}; {mend(self._reader.folder)}")
        except MemoryError:
            return _Failure(None)
        return Batch(torch.from_numpy(hr), torch.from_numpy(small), damaged)


class Loader:
    """Iterates over the micro-batches first .. stop-1 and keeps account of the time that was spent waiting for them.

    Taking a batch raises RunError when a shard cannot be read or a worker died, MemoryError when memory is short.
    """

    def __init__(
        self, reader: BatchReader, rows: Rows, first: int, stop: int, workers: int, prefetch: int, pin_memory: bool
    ) -> None:
        self.wait_s = 0.0  # for all batches but the first
        several: dict[str, Any] = (
            {
                "prefetch_factor": prefetch,
                "multiprocessing_context": start_fork_server(),
                "worker_init_fn": _end_with_parent,
            }
            if workers
            else {}
        )
        self._loader = DataLoader(
            _MicroBatches(reader, rows),
            batch_size=None,
            sampler=range(first, stop),
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            **several,
        )

    def started(self) -> Iterator[Batch]:
        """The batches, in order. Returns when the first one is there: what the workers' start takes is not waiting."""
        batches = self._batches()
        first = next(batches, None)
        self.wait_s = 0.0
        return batches if first is None else chain([first], batches)

    def _batches(self) -> Iterator[Batch]:
        try:
            batches = iter(self._loader)
            while True:
                start_s = perf_counter()
                batch = next(batches, None)
                if batch is None:
                    return
                if isinstance(batch, _Failure):
                    raise MemoryError if batch.message is None else RunError(batch.message)
                self.wait_s += perf_counter() - start_s
                yield batch
        except (RuntimeError, OSError, EOFError) as error:  # of DataLoader: a worker is dead, or its end of a socket
            raise RunError(_worker_death(error)) from error


def check_shared_memory(batch_bytes: int, workers: int, prefetch: int) -> None:
    """Batches travel from the workers through /dev/shm: UsageError, with the size that is needed, when it is too small.

    Without this check a worker would die of SIGBUS at its first batch that does not fit.
    """
    if not workers or not SHARED_MEMORY.is_dir():
        return
    needed = batch_bytes * (workers * prefetch + _SPARE_BATCHES)
    status = os.statvfs(SHARED_MEMORY)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise UsageError(
            f"{SHARED_MEMORY} has {free / 1e6:.0f} MB free, but {workers} workers with --prefetch {prefetch} need "
            f"{needed / 1e6:.0f} MB there; enlarge it (docker run --shm-size=..., or mount -o remount,size=... "
            f"{SHARED_MEMORY}), or take fewer --workers, a smaller --prefetch, or --workers 0"
        )


def _end_with_parent(worker: int) -> None:
    """End this worker when the training process is dead, and at no other time.

    PyTorch's own watch sees the fork server, which lives on. SIGTERM may go to the whole group of processes; what it
    means is for the training process to decide.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    training = multiprocessing.parent_process()
    assert training is not None  # this is a worker

    def watch() -> None:
        training.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _as_it_is(item: Any) -> Any:
    return item


def _worker_death(error: Exception) -> str:
    said = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"a data worker died ({said[0]}). If the system killed it for want of memory, take fewer --workers or a "
        "smaller --prefetch"
    )
