"""A separate process that fetches the next block of shards while training uses the current one.

It is a process because threads would compete with training for the GIL. It is optional: a reader that needs a missing
shard fetches it itself, and reports any error.
"""

from collections.abc import Iterator
from typing import Any

from srshards.errors import ArgumentError
from srshards.loader.patch_batch import PatchBatch, Source
from srshards.loader.ring import Ring
from srshards.loader.shard_fetcher import STEP_BYTES, PrefetchWindow, fetch, step_in
from srshards.loader.worker_pool import WORKER_MODULE
from srshards.process.fork_server import GROUP_SIGNALS, start_fork_server
from srshards.shards.cached import CachedShards
from srshards.terminal.sizes import format_bytes

_INDEX_SHARE = 0.01  # rough size of the sidecar files in the cache, relative to the shard


def cache_bytes(cached: CachedShards, num_bytes: int) -> int:
    """Return the cache space for `num_bytes` of shards, their indexes and one compressed shard being decoded."""
    needed = num_bytes + (cached.largest_bytes() if cached.is_decoded else 0)
    return needed + int(_INDEX_SHARE * needed)


def check_cache(cached: CachedShards, needed: int) -> None:
    """Raise ArgumentError when the limit of the cache is below `needed` bytes."""
    if needed > cached.cache.limit:
        raise ArgumentError(
            f"the cache {cached.cache.path} is limited to {format_bytes(cached.cache.limit)}, but the shards needed at "
            f"the same time take {format_bytes(needed)}; set the limit to {-(-needed // 10**6)}MB or more, on a disk "
            "with enough space"
        )


class PrefetchedBatches:
    """The batches of a source, starting at step `first`, with shards fetched in advance by another process."""

    def __init__(
        self, source: Source, shards: CachedShards, window: PrefetchWindow, first: int, batches_per_step: int = 1
    ) -> None:
        self._source = source
        self._shards = shards
        self._window = window
        self._first = first
        self._batches_per_step = batches_per_step

    @property
    def wait_s(self) -> float:
        return self._source.wait_s

    def started(self) -> Iterator[PatchBatch]:
        """Start the source, then return an iterator over the batches."""
        batches = self._running()
        next(batches)  # enter its `try`, so that closing the iterator ends the process
        return batches

    def _running(self) -> Iterator[Any]:
        """Yield None once the source has started, then the batches."""
        memory = Ring(1, STEP_BYTES)
        step = step_in(memory)
        step[0] = self._first
        arguments = (self._shards, self._window, memory)
        context = start_fork_server(WORKER_MODULE, GROUP_SIGNALS)
        process = context.Process(target=fetch, args=arguments, name="fetcher", daemon=True)
        process.start()
        try:
            batches = self._source.started()
            yield None
            for number, batch in enumerate(batches):
                step[0] = self._first + number // self._batches_per_step
                yield batch
        finally:
            process.kill()  # just after its start it still ignores SIGTERM
            process.join()
            self._shards.cache.sweep()  # remove its incomplete downloads
