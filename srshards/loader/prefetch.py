"""A separate process that fetches the next block of shards while training uses the current one.

It is a process because threads would compete with training for the GIL. It is optional: a reader that needs a missing
shard fetches it itself, and reports any error.
"""

from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import sleep
from typing import Any

import numpy as np
import numpy.typing as npt

from srshards.errors import ArgumentError
from srshards.format import ShardRecord
from srshards.loader.patch_batch import PatchBatch, Source
from srshards.loader.ring import Ring
from srshards.process.fork_server import GROUP_SIGNALS, end_with_parent, start_fork_server
from srshards.sampling.schedule import Schedule
from srshards.shards.cache_folder import NoRoomError
from srshards.shards.cached import CachedShards
from srshards.terminal.sizes import format_bytes

_DOWNLOADS_AT_ONCE = 4
_POLL_INTERVAL_S = 0.1
_NO_ROOM_PAUSE_S = 2.0
_STEP_BYTES = 8
_INDEX_SHARE = 0.01  # rough size of the sidecar files in the cache, relative to the shard


@dataclass(frozen=True)
class PrefetchWindow:
    """The shards needed soon by a run of `stop` steps: those that workers may be reading, and the next block.

    `records` are the shards of the schedule. Workers read up to `steps` ahead of training.
    """

    schedule: Schedule
    records: tuple[ShardRecord, ...]
    steps: int
    stop: int

    def wanted(self, step: int) -> list[ShardRecord]:
        """Return the shards of all blocks that workers may be reading at a training step, and of the next block."""
        found: dict[int, None] = {}
        for first, shards in self.schedule.blocks_from(step):
            if first < self.stop:
                found.update(dict.fromkeys(shards.tolist()))
            if first >= min(step + self.steps, self.stop):
                break
        return [self.records[shard] for shard in found]

    def max_bytes(self, shards: CachedShards) -> int:
        """Return an upper bound of the bytes of `wanted`, whose steps may start and end inside a block."""
        sizes = [shards.size(record) for record in self.records]
        total = sum(sizes)
        block = max(self.schedule.block_bytes, *sizes)
        return min(total, 2 * block + total * self.schedule.position(self.steps) // self.schedule.num_samples)


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
        memory = Ring(1, _STEP_BYTES)
        step = _step(memory)
        step[0] = self._first
        arguments = (self._shards, self._window, memory)
        context = start_fork_server("srshards.loader.workers", GROUP_SIGNALS)
        process = context.Process(target=_fetch, args=arguments, name="fetcher", daemon=True)
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


def _step(memory: Ring) -> npt.NDArray[np.int64]:
    """Return the training step, an array of one element in memory shared by both processes."""
    return memory.slot(0).view(np.int64)


def _fetch(shards: CachedShards, window: PrefetchWindow, memory: Ring) -> None:
    end_with_parent()
    step = _step(memory)
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        fetcher = ShardFetcher(shards, window, pool)
        while True:
            sleep(_POLL_INTERVAL_S if fetcher.update(int(step[0])) else _NO_ROOM_PAUSE_S)


class ShardFetcher:
    """Fetches each shard once while it is wanted, even if the fetch fails or the shard is evicted.

    Otherwise, runs that share a cache too small for all of them would evict each other's shards forever.
    """

    def __init__(self, shards: CachedShards, window: PrefetchWindow, pool: Executor) -> None:
        self._shards = shards
        self._window = window
        self._pool = pool
        self._pending: dict[str, Future[None]] = {}
        self._requested: set[str] = set()

    def update(self, step: int) -> bool:
        """Start fetching the shards needed soon at a training step. Return whether the cache had room so far."""
        has_room = True
        for name in [name for name, future in self._pending.items() if future.done()]:
            if isinstance(self._pending.pop(name).exception(), NoRoomError):
                self._requested.discard(name)
                has_room = False
        wanted = {self._shards.name(record): record for record in self._window.wanted(step)}
        self._requested.intersection_update(wanted)
        for name, record in wanted.items():
            is_new = not (name in self._pending or name in self._requested or self._shards.cache.has(name))
            if has_room and is_new and len(self._pending) < _DOWNLOADS_AT_ONCE:
                self._requested.add(name)
                self._pending[name] = self._pool.submit(self._shards.fetch, record, frozenset(wanted))
        return has_room
