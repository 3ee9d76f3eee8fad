"""Data workers as seen from the training process: `WorkerPool` starts, feeds and stops them.

PyTorch's `DataLoader` would do the same, but each of its workers imports PyTorch, needs semaphores and watches the
wrong parent. Here chunks are assigned to the workers in turn, so the next report is always that of the next worker: one
pipe per worker is enough, without locks or threads.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

from srshards.errors import ArgumentError, WorkerDiedError
from srshards.loader.batches import DamagedRow
from srshards.loader.chunk_worker import Assignment, Chunk, ChunkReader, Failure, work
from srshards.process.fork_server import GROUP_SIGNALS, start_fork_server
from srshards.process.shortages import too_many_workers
from srshards.shards.mapped import repair_hint

WORKER_MODULE = "srshards.loader.chunk_worker"  # imported once, by the fork server
_FILES_PER_WORKER = 3  # descriptors that this process needs per worker


class _Worker(NamedTuple):
    process: BaseProcess
    connection: "Connection[Any, Any]"


class ThisProcess:
    """Reads chunks in this process, when they are to be received."""

    def __init__(self, reader: ChunkReader) -> None:
        self._reader = reader
        self._assigned: deque[tuple[Chunk, int]] = deque()

    def assign(self, chunk: Chunk, slot: int) -> None:
        self._assigned.append((chunk, slot))

    def receive(self) -> tuple[DamagedRow, ...]:
        return self._reader.read(*self._assigned.popleft())

    def close(self) -> None:
        """Do nothing: no process was started."""


class WorkerPool:
    """Reads chunks in `workers` processes, which are started but not waited for.

    ArgumentError when the system lacks descriptors for them, RuntimeError when this process cannot have child
    processes. `receive` raises the errors of workers, and WorkerDiedError when one died.
    """

    def __init__(self, reader: ChunkReader, workers: int) -> None:
        _check_workers(workers)
        self._origin = reader.origin
        started: list[_Worker] = []
        # Also called when this object is collected or the interpreter exits, but not in a forked child.
        self.close = Finalize(self, _stop, (started,), exitpriority=0)
        try:
            context = start_fork_server(WORKER_MODULE, GROUP_SIGNALS)
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=work, args=(theirs, reader), daemon=True)
                process.start()
                theirs.close()  # else the end of the worker would not end the connection
                started.append(_Worker(process, ours))
        except (OSError, EOFError) as error:
            self.close()
            raise _died(str(error) or type(error).__name__) from error
        self._assigning, self._receiving = cycle(started), cycle(started)

    def assign(self, chunk: Chunk, slot: int) -> None:
        """Send a chunk to the next worker."""
        with suppress(ConnectionError):  # the worker is dead: `receive` reports it
            next(self._assigning).connection.send(tuple(Assignment.of(chunk, slot)))

    def receive(self) -> tuple[DamagedRow, ...]:
        """Return the replaced rows of the oldest outstanding chunk, when it has been written."""
        worker = next(self._receiving)
        try:
            message: tuple[DamagedRow, ...] | Failure = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            if code == -signal.SIGBUS:  # a page of a mapped shard could not be read
                raise WorkerDiedError(
                    "a data worker died: a shard was truncated while it was being read, or its disk failed; "
                    f"{repair_hint(self._origin)}"
                ) from None
            raise _died(f"killed by signal {-code}" if code and code < 0 else f"exit code {code}") from None
        if isinstance(message, Failure):
            raise message.error
        return message


def _stop(workers: Sequence[_Worker]) -> None:
    """Kill the workers: they may be in the middle of a chunk, and leave no files."""
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()
        worker.connection.close()


def _check_workers(workers: int) -> None:
    current = multiprocessing.current_process()
    if current.daemon:
        raise RuntimeError(f"{current.name} is a daemonic process, which cannot start data workers; pass `workers` 0")
    if reason := too_many_workers(workers, _FILES_PER_WORKER, "`workers`"):
        raise ArgumentError(reason)


def _died(reason: str) -> WorkerDiedError:
    return WorkerDiedError(
        f"a data worker died ({reason}); if the system killed it for lack of memory, use fewer `workers` or a smaller "
        "`prefetch`"
    )
