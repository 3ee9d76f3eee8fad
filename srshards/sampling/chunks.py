"""How workers transfer batches: the rows of each rank, the steps per transfer, and the memory needed."""

from dataclasses import dataclass

from srshards.format import CROP_CODECS
from srshards.sampling.patches import PatchGrid

_CHUNK_BYTES = 32_000_000  # filling this much takes far longer than transferring it


@dataclass(frozen=True)
class Rows:
    """The rows of each global batch that belong to this process, and their division into micro-batches."""

    batch: int
    micro_batches: int = 1
    rank: int = 0
    ranks: int = 1

    @property
    def global_batch(self) -> int:
        return self.batch * self.micro_batches * self.ranks

    @property
    def per_step(self) -> int:
        """Number of rows of this rank per step."""
        return self.batch * self.micro_batches

    @property
    def of_step(self) -> range:
        """The rows of this rank, in the order of its micro-batches."""
        return range(self.rank * self.per_step, (self.rank + 1) * self.per_step)


@dataclass(frozen=True)
class Chunks:
    """Division of the steps into chunks of `size` steps, `step_bytes` each; `prefetch_factor` chunks per worker.

    Chunk n has steps n * size .. (n + 1) * size - 1, whatever the first step of a run.
    """

    size: int
    prefetch_factor: int
    step_bytes: int

    @classmethod
    def of(cls, rows: Rows, grid: PatchGrid, codec: str, patches_per_sample: int, prefetch: int) -> "Chunks":
        """Choose the chunk size for at least `prefetch` batches per worker. Steps that share samples stay together.

        Batches of `npy` are only copied, and those of `tlc` decoded without the rest of their images. Transferring each
        one separately would add half of the time of copying, so a chunk has several steps.
        """
        step_bytes, parts = rows.per_step * grid.bytes_per_row, rows.micro_batches
        size = patches_per_sample
        if codec in CROP_CODECS and size == 1:
            size = max(1, min(prefetch // (2 * parts), _CHUNK_BYTES // step_bytes))
        return cls(size, max(2, -(-prefetch // (size * parts))), step_bytes)

    @property
    def num_bytes(self) -> int:
        return self.size * self.step_bytes

    def num_slots(self, workers: int) -> int:
        """Return the number of chunks that can be in flight, plus the one in use."""
        return workers * self.prefetch_factor + 1

    def numbers(self, first: int, stop: int) -> range:
        """Return the chunks that contain steps first .. stop-1."""
        return range(first // self.size, -(-stop // self.size)) if first < stop else range(0)

    def steps(self, chunk: int, first: int, stop: int) -> range:
        """Return the steps of a chunk that are in first .. stop-1."""
        return range(max(first, chunk * self.size), min(stop, (chunk + 1) * self.size))
