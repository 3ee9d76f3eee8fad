"""How batches are handed over by the workers: whose rows, how many steps at a time, and how much memory that takes."""

from dataclasses import dataclass

from srshards.sampling.patches import PatchGrid

_CHUNK_BYTES = 32_000_000  # handing over is small beside filling this much


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

    @property
    def per_step(self) -> int:
        """How many rows of a step are this rank's."""
        return self.batch * self.micro_batches

    @property
    def of_step(self) -> range:
        """The rows of this rank, in the order of its micro-batches."""
        return range(self.rank * self.per_step, (self.rank + 1) * self.per_step)


@dataclass(frozen=True)
class Chunks:
    """A chunk is the batches of `size` steps in a row, `step_bytes` each. A worker has `prefetch_factor` to read.

    Chunk n has the steps n * size .. (n + 1) * size - 1, whichever step a run begins with.
    """

    size: int
    prefetch_factor: int
    step_bytes: int

    @classmethod
    def of(cls, rows: Rows, grid: PatchGrid, codec: str, patches_per_sample: int, prefetch: int) -> "Chunks":
        """At least `prefetch` batches ahead. Steps that share their samples stay together.

        Where a batch is only copied, handing it over costs half as much again, so several go at once.
        """
        step_bytes, parts = rows.per_step * grid.bytes_per_row, rows.micro_batches
        size = patches_per_sample
        if codec == "npy" and size == 1:
            size = max(1, min(prefetch // (2 * parts), _CHUNK_BYTES // step_bytes))
        return cls(size, max(2, -(-prefetch // (size * parts))), step_bytes)

    @property
    def num_bytes(self) -> int:
        return self.size * self.step_bytes

    def num_slots(self, workers: int) -> int:
        """As many chunks as can be under way, and the one that is being looked at."""
        return workers * self.prefetch_factor + 1

    def numbers(self, first: int, stop: int) -> range:
        """The chunks that hold the steps first .. stop-1."""
        return range(first // self.size, -(-stop // self.size)) if first < stop else range(0)

    def steps(self, chunk: int, first: int, stop: int) -> range:
        """What a chunk has of the steps first .. stop-1."""
        return range(max(first, chunk * self.size), min(stop, (chunk + 1) * self.size))
