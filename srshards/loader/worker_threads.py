"""Data workers that are threads of the training process: `WorkerThreads` starts, feeds and stops them.

For batches that are copied by the compiled core, which releases the GIL. Compared with processes, they start at once,
and share the memory of batches as it is.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.util import Finalize

from srshards.loader.batches import DamagedRow
from srshards.loader.chunk_worker import Chunk, ChunkReader


class WorkerThreads:
    """Reads chunks in `workers` threads. `receive` raises their errors. `close` waits for chunks being read."""

    def __init__(self, reader: ChunkReader, workers: int) -> None:
        self._idle = reader.for_threads(workers)  # each thread takes one, in any order
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="srshards_worker")
        # Also called when the interpreter exits, before it clears the modules that this needs, but not in a forked
        # child, which has none of the threads.
        self.close = Finalize(self, self._threads.shutdown, kwargs={"cancel_futures": True}, exitpriority=0)
        self._assigned: deque[Future[tuple[DamagedRow, ...]]] = deque()

    def assign(self, chunk: Chunk, slot: int) -> None:
        """Let the next idle thread read a chunk."""
        self._assigned.append(self._threads.submit(self._read, chunk, slot))

    def receive(self) -> tuple[DamagedRow, ...]:
        """Return the replaced rows of the oldest outstanding chunk, when it has been written."""
        return self._assigned.popleft().result()

    def _read(self, chunk: Chunk, slot: int) -> tuple[DamagedRow, ...]:
        reader = self._idle.pop()
        try:
            return reader.read(chunk, slot)
        finally:
            self._idle.append(reader)
