"""Fetch the next block of shards into the cache, in a process of its own. Like a worker, it does not import PyTorch."""

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import sleep

import numpy as np
import numpy.typing as npt

from srshards.format import ShardRecord
from srshards.loader.ring import Ring
from srshards.process.fork_server import end_with_parent
from srshards.sampling.schedule import Schedule
from srshards.shards.cache_folder import NoRoomError
from srshards.shards.cached import CachedShards

STEP_BYTES = 8
_DOWNLOADS_AT_ONCE = 4
_POLL_INTERVAL_S = 0.1
_NO_ROOM_PAUSE_S = 2.0


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


def step_in(memory: Ring) -> npt.NDArray[np.int64]:
    """Return the training step, an array of one element in memory shared by both processes."""
    return memory.slot(0).view(np.int64)


def fetch(shards: CachedShards, window: PrefetchWindow, memory: Ring) -> None:
    """Fetch the shards wanted at the training step in `memory`, until killed."""
    end_with_parent()
    step = step_in(memory)
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
        """Start to fetch the shards that training needs soon after this step. Return False if the cache is full."""
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
