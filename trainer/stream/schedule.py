"""Which samples make which batch: a pure function of (seed, step), computed without reading a byte of data.

Samples are numbered 0 .. N-1 through the shards in the order of the manifest. An epoch is a permutation of them:

    shards permuted ─▶ grouped into blocks of some shards ─▶ samples permuted within a block

so the shuffle is wide, and what is read at a time (a block) stays small enough for the page cache. The epochs stand one
after the other on an endless line, and step n takes the n-th stretch of `global_batch` samples from it: every sample
comes exactly once in every epoch, and what an epoch leaves over begins the next epoch's first batch. Nothing here knows
about workers or ranks: a rank takes its rows of the global batch.

Where decoding a sample is dear, K patches are cut from it at once, for K steps in a row: the line goes through K epochs
at a time, and every stretch of it serves K steps, of which the j-th has the crops of the j-th of these epochs (data
echoing: Choi et al., "Faster Neural Network Training with Data Echoing", 2019, echoed before augmentation).

Where a sample has N degradations of its HR image, each epoch shows the next one of them, from one that is drawn for the
sample: every N epochs in a row it shows each exactly once.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.stream.draws import below, draw, shuffled

BLOCK_BYTES = 2_000_000_000

_SHARDS, _SAMPLES = 0, 1  # keep the two kinds of permutations apart
_VARIANT = 4  # keeps this draw of a sample apart from those of its cut


class Draws(NamedTuple):
    """Rows of a batch: which sample, and in which epoch, which decides its variant, its crop and its flips."""

    epochs: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]

    def variants(self, seed: int, count: int) -> npt.NDArray[np.int64]:
        """Which of the `count` variants of its input each row shows."""
        if count == 1:
            return np.zeros_like(self.numbers)
        return (self.epochs + below(draw(seed, self.numbers, _VARIANT), count)) % count


class Block(NamedTuple):
    """A stretch of an epoch, and the shards that its samples are drawn from."""

    start: int
    stop: int
    shards: npt.NDArray[np.int64]


class Schedule:
    """The endless line of samples.

    `shard_samples` and `shard_bytes` are those of the training shards, in the manifest's order. So many steps in a row
    as `patches_per_sample` says have the same samples. A block has at most `block_bytes`, or one shard.
    """

    def __init__(
        self,
        shard_samples: Sequence[int],
        shard_bytes: Sequence[int],
        seed: int,
        global_batch: int,
        patches_per_sample: int = 1,
        block_bytes: int | None = None,
    ) -> None:
        self.num_samples = sum(shard_samples)
        if self.num_samples < 1 or global_batch < 1:
            raise ValueError(f"no schedule for {self.num_samples} samples and batches of {global_batch}")
        self._samples = np.asarray(shard_samples, np.int64)
        self._bytes = np.asarray(shard_bytes, np.int64)
        self._first_number = np.cumsum(self._samples) - self._samples
        self._starts = self._first_number.tolist()  # to bisect in one at a time, a list is faster than an array
        self._seed = seed
        self.global_batch = global_batch
        self.patches_per_sample = patches_per_sample
        self.block_bytes = block_bytes or BLOCK_BYTES
        self._blocks: tuple[int, list[Block]] = (-1, [])  # of the epoch asked for last
        self._order: tuple[tuple[int, int], npt.NDArray[np.int64]] = ((-1, -1), self._first_number)  # of the last block

    def num_steps(self, epochs: int) -> int:
        """In so many epochs, a multiple of `patches_per_sample`: whole global batches, at least one."""
        rounds = epochs // self.patches_per_sample
        return self.patches_per_sample * max(1, rounds * self.num_samples // self.global_batch)

    def samples_left_out(self, epochs: int) -> int:
        """At the very end, because they fill no batch."""
        rounds, stretches = (count // self.patches_per_sample for count in (epochs, self.num_steps(epochs)))
        return max(0, rounds * self.num_samples - stretches * self.global_batch)

    def batch(self, step: int, first: int = 0, stop: int | None = None) -> Draws:
        """Rows first .. stop-1 of the global batch of a step (all of them by default)."""
        stretch, echo = divmod(step, self.patches_per_sample)
        start = stretch * self.global_batch
        positions = np.arange(start + first, start + (self.global_batch if stop is None else stop))
        rounds, places = np.divmod(positions, self.num_samples)  # through all samples
        numbers = np.empty_like(positions)
        for number in range(int(rounds[0]), int(rounds[-1]) + 1):
            here = rounds == number
            numbers[here] = self._numbers(number, places[here])
        return Draws(rounds * self.patches_per_sample + echo, numbers)

    def shard_of(self, number: int) -> tuple[int, int]:
        """The shard (its place in the manifest) that holds a sample, and the sample's place in it."""
        shard = bisect_right(self._starts, number) - 1
        return shard, number - self._starts[shard]

    def blocks(self, epoch: int) -> list[Block]:
        """The blocks of an epoch, in order. Shards without samples are in none."""
        if self._blocks[0] != epoch:
            order = shuffled(len(self._samples), self._seed, epoch, _SHARDS)
            self._blocks = epoch, self._grouped(order[self._samples[order] > 0])
        return self._blocks[1]

    def position(self, step: int) -> int:
        """Where on the endless line the samples of a step begin."""
        return step // self.patches_per_sample * self.global_batch

    def blocks_from(self, step: int) -> Iterator[tuple[int, Block]]:
        """The block that a step begins in, all that come after it, and where on the line each of them begins."""
        first, place = divmod(self.position(step), self.num_samples)
        for number in count(first):
            for block in self.blocks(number):
                if number > first or block.stop > place:
                    yield number * self.num_samples + block.start, block

    def _grouped(self, order: npt.NDArray[np.int64]) -> list[Block]:
        blocks: list[Block] = []
        start = first = 0
        while first < len(order):
            sizes = np.cumsum(self._bytes[order[first:]])
            count = max(1, int(np.searchsorted(sizes, self.block_bytes, "right")))
            shards = order[first : first + count]
            stop = start + int(self._samples[shards].sum())
            blocks.append(Block(start, stop, shards))
            start, first = stop, first + count
        return blocks

    def _numbers(self, epoch: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        numbers = np.empty_like(places)
        for index, block in enumerate(self.blocks(epoch)):
            here = (places >= block.start) & (places < block.stop)
            if here.any():
                numbers[here] = self._block_order(epoch, index, block)[places[here] - block.start]
        return numbers

    def _block_order(self, epoch: int, index: int, block: Block) -> npt.NDArray[np.int64]:
        if self._order[0] != (epoch, index):
            starts, counts = self._first_number[block.shards], self._samples[block.shards]
            numbers = np.concatenate([np.arange(s, s + c) for s, c in zip(starts, counts, strict=True)])
            permutation = shuffled(len(numbers), self._seed, epoch, _SAMPLES, index)
            self._order = (epoch, index), numbers[permutation]
        return self._order[1]
