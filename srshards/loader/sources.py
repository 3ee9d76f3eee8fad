"""Create the source of a loader's batches: worker processes (with shard prefetching), or the device."""

from dataclasses import dataclass

import torch

from srshards.loader.arguments import Ranks
from srshards.loader.batches import BatchReader
from srshards.loader.memory import check_batch, check_crop_memory, check_resident, check_ring
from srshards.loader.patch_batch import Source
from srshards.loader.prefetch import PrefetchedBatches, cache_bytes, check_cache
from srshards.loader.resident import ResidentBatches, crop_memory_bytes, resident_bytes
from srshards.loader.shard_fetcher import PrefetchWindow
from srshards.loader.workers import WorkerBatches
from srshards.sampling.chunks import Chunks, Rows
from srshards.sampling.patches import PatchGrid
from srshards.sampling.schedule import Schedule
from srshards.shards.folder import Shards


def batch_reader(
    shards: Shards, grid: PatchGrid, input_name: str, seed: int, global_batch: int, patches_per_sample: int
) -> BatchReader:
    """Return a reader of the training split."""
    return BatchReader(
        shards=shards.train_tars(),
        codec=shards.codec,
        schedule=Schedule(
            [record.samples for record in shards.train.records],
            [shards.num_bytes(record) for record in shards.train.records],
            seed,
            global_batch,
            patches_per_sample,
        ),
        grid=grid,
        input_names=shards.inputs(input_name),
        seed=seed,
        cached=shards.cached.open if shards.cached else None,
        origin=shards.origin,
    )


@dataclass(frozen=True)
class Sources:
    """Factory for the sources of a loader's batches, which may start at any step.

    With `resident`, a source keeps all samples on the device; otherwise it reads them in worker processes.
    """

    shards: Shards
    reader: BatchReader
    rows: Rows
    ranks: Ranks
    device: torch.device
    workers: int
    prefetch: int
    resident: bool

    def source(self, first: int, stop: int) -> Source:
        """Return a source of steps first .. stop-1. ArgumentError when the cache is too small for them."""
        if self.resident:
            return ResidentBatches(self.reader, self.rows, first, stop, self.device)
        source = WorkerBatches(self.reader, self.rows, first, stop, self.workers, self.prefetch, self.device)
        cached = self.shards.cached
        if cached is None:
            return source
        check_cache(cached, self.cache_bytes())
        if self.ranks.local_rank:  # one process per machine fetches for all of them
            return source
        return PrefetchedBatches(source, cached, self._window(stop), first, self.rows.micro_batches)

    def checked_memory(self) -> int:
        """Check that memory suffices, and return the size in bytes of the ring, or of all samples on the device.

        ArgumentError when it does not.
        """
        rows, grid, num_samples = self.rows, self.reader.grid, self.reader.schedule.num_samples
        check_batch(rows, grid.bytes_per_row)
        if not self.resident:
            return check_ring(self._chunks, self.workers, self.prefetch, self.ranks)
        needed = resident_bytes(grid, num_samples, len(self.reader.input_names))
        check_resident(needed, num_samples, self.device, self.ranks)
        check_crop_memory(crop_memory_bytes(rows), self.ranks)
        return needed

    def cache_bytes(self, other_shards: int = 0) -> int:
        """Return the required cache capacity in bytes, including `other_shards` bytes; 0 without a cache."""
        cached = self.shards.cached
        return cache_bytes(cached, self._window(0).max_bytes(cached) + other_shards) if cached else 0

    @property
    def _chunks(self) -> Chunks:
        patches_per_sample = self.reader.schedule.patches_per_sample
        return Chunks.of(self.rows, self.reader.grid, self.reader.codec, patches_per_sample, self.prefetch)

    def _window(self, stop: int) -> PrefetchWindow:
        chunks = self._chunks
        steps = chunks.size * chunks.num_slots(self.workers)
        return PrefetchWindow(self.reader.schedule, self.shards.train.records, steps, stop)
