"""Another process that fetches the next block of shards while this one is trained on.

Threads of the training process would take turns with it. Nothing depends on this process: whoever needs a shard that is
not there fetches it, and says what is wrong when it cannot.
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
_LOOK_EVERY_S = 0.1
_NO_ROOM_PAUSE_S = 2.0
_STEP_BYTES = 8
_INDEX_SHARE = 0.01  # of a shard's bytes, about: what lies beside it in a cache


@dataclass(frozen=True)
class PrefetchWindow:
    """Which shards a training of `stop` steps needs soon: those that workers may be reading, and the next ones.

    `records` are those of the schedule. Workers read up to `steps` ahead of training.
    """

    schedule: Schedule
    records: tuple[ShardRecord, ...]
    steps: int
    stop: int

    def wanted(self, step: int) -> list[ShardRecord]:
        """The shards of all blocks that workers may be reading at a step of training, and those of the next one."""
        found: dict[int, None] = {}
        for first, shards in self.schedule.blocks_from(step):
            if first < self.stop:
                found.update(dict.fromkeys(shards.tolist()))
            if first >= min(step + self.steps, self.stop):
                break
        return [self.records[shard] for shard in found]

    def most_bytes(self, shards: CachedShards) -> int:
        """What these take in a cache at most, at any step: what is read ahead may begin and end in the middle."""
        sizes = [shards.size(record) for record in self.records]
        total = sum(sizes)
        block = max(self.schedule.block_bytes, *sizes)
        return min(total, 2 * block + total * self.schedule.position(self.steps) // self.schedule.num_samples)


def cache_bytes(cached: CachedShards, num_bytes: int) -> int:
    """What so many bytes of shards take in a cache, with their indices and what one of them is decoded from."""
    needed = num_bytes + (cached.largest_bytes() if cached.is_decoded else 0)
    return needed + int(_INDEX_SHARE * needed)


def check_cache(cached: CachedShards, needed: int) -> None:
    """ArgumentError when a cache may not hold so many bytes."""
    if needed > cached.cache.limit:
        raise ArgumentError(
            f"the cache {cached.cache.path} may have {format_bytes(cached.cache.limit)}, but the shards that have to "
            f"be there at once take {format_bytes(needed)}: give it {-(-needed // 10**6)}MB or more, on a disk with so "
            "much room"
        )


class PrefetchedBatches:
    """The batches of a source, from step `first` on, whose shards another process fetches in advance."""

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
        """The batches, in order. Returns when the first one is there."""
        batches = self._running()
        next(batches)  # what is begun is ended with it, also when nothing else is taken from it
        return batches

    def _running(self) -> Iterator[Any]:
        """Nothing when the first batch is there, then the batches."""
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
            process.kill()  # it may be so young that it still ignores SIGTERM
            process.join()
            self._shards.cache.sweep()  # what it was fetching


def _step(memory: Ring) -> npt.NDArray[np.int64]:
    """The step of training, in memory that both processes have."""
    return memory.slot(0).view(np.int64)


def _fetch(shards: CachedShards, window: PrefetchWindow, memory: Ring) -> None:
    """What the process does until training ends it."""
    end_with_parent()
    step = _step(memory)
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        fetcher = ShardFetcher(shards, window, pool)
        while True:
            sleep(_LOOK_EVERY_S if fetcher.look(int(step[0])) else _NO_ROOM_PAUSE_S)


class ShardFetcher:
    """Asks for each shard once while it is wanted, also when it does not come, or does not stay.

    Runs that share a cache too small for them all would otherwise take the room from each other, for ever.
    """

    def __init__(self, shards: CachedShards, window: PrefetchWindow, pool: Executor) -> None:
        self._shards = shards
        self._window = window
        self._pool = pool
        self._under_way: dict[str, Future[None]] = {}
        self._asked: set[str] = set()

    def look(self, step: int) -> bool:
        """Begin to fetch what will soon be read at a step of training. False when there was no room for a shard."""
        has_room = True
        for name in [name for name, future in self._under_way.items() if future.done()]:
            if isinstance(self._under_way.pop(name).exception(), NoRoomError):
                self._asked.discard(name)
                has_room = False
        wanted = {self._shards.name(record): record for record in self._window.wanted(step)}
        self._asked.intersection_update(wanted)
        for name, record in wanted.items():
            is_new = not (name in self._under_way or name in self._asked or self._shards.cache.has(name))
            if has_room and is_new and len(self._under_way) < _DOWNLOADS_AT_ONCE:
                self._asked.add(name)
                self._under_way[name] = self._pool.submit(self._shards.fetch, record, frozenset(wanted))
        return has_room
