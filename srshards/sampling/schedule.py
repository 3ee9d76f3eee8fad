"""The samples of each batch: a pure function of (seed, step), computed without reading data.

Samples are numbered 0 .. N-1 through the shards in manifest order. An epoch is a permutation of them:

    shards permuted ─▶ grouped into blocks of several shards ─▶ samples permuted within a block

This shuffles widely, while the data in use at a time (a block) fits in the page cache. Epochs form one infinite
sequence; step n consumes its n-th `global_batch` samples. Every sample occurs exactly once per epoch, and samples left
over at the end of an epoch start the first batch of the next one. Nothing here depends on workers or ranks: each rank
takes its rows of the global batch.

Where decoding is expensive, K patches are cut from each sample at once, for K consecutive steps: the sequence advances
K epochs at a time, and K steps share the same `global_batch` samples. Step j of them uses the crops of epoch j of these
(data echoing before augmentation: Choi et al., "Faster Neural Network Training with Data Echoing", 2019).

Where a sample has N degraded variants, successive epochs use successive variants, starting at a random one: any N
consecutive epochs use each variant exactly once.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from srshards.sampling.counter_rng import below, draw, shuffled

BLOCK_BYTES = 2_000_000_000

_SHARDS, _SAMPLES = 0, 1  # keys that distinguish the two kinds of permutations
_VARIANT = 4  # key that distinguishes this draw of a sample from those of its cut

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class BatchSamples(NamedTuple):
    """The rows of a batch: sample numbers, and the epochs that determine their variants, crops and flips."""

    epochs: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]

    def variants(self, seed: int, count: int) -> npt.NDArray[np.int64]:
        """Return the input variant of each row, in 0 .. count-1."""
        if count == 1:
            return np.zeros_like(self.numbers)
        return (self.epochs + below(draw(seed, self.numbers, _VARIANT), count)) % count


@dataclass(frozen=True)
class Blocks:
    """The blocks of an epoch. Block b has shards `order[firsts[b] : firsts[b + 1]]`, and its samples are at offsets
    `starts[b]` .. `starts[b + 1] - 1` in the epoch. Empty shards are in no block.
    """

    order: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def shards(self, block: int) -> npt.NDArray[np.int64]:
        return self.order[self.firsts[block] : self.firsts[block + 1]]

    def at(self, offset: int) -> int:
        """Return the block that contains this offset in the epoch."""
        return int(self.starts.searchsorted(offset, "right")) - 1


class Schedule:
    """The infinite sequence of samples.

    `shard_samples` and `shard_bytes` are the sizes of the training shards, in manifest order. `patches_per_sample`
    consecutive steps have the same samples. A block has at most `block_bytes`, or a single shard.

    The shards of an epoch and the samples of a block are permuted at their first use. The cost of any other batch does
    not depend on the number of shards.
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
        self._starts = array("q", self._first_number.tobytes())  # bisecting is faster than NumPy's searchsorted
        self._seed = seed
        self.global_batch = global_batch
        self.patches_per_sample = patches_per_sample
        self.block_bytes = block_bytes or BLOCK_BYTES
        self._blocks: dict[int, Blocks] = {}  # of the latest epochs
        self._orders: dict[tuple[int, int], npt.NDArray[np.int64]] = {}  # of the latest blocks

    def num_steps(self, epochs: int) -> int:
        """Return the number of complete steps in `epochs` epochs, a multiple of `patches_per_sample`; at least one."""
        rounds = epochs // self.patches_per_sample
        return self.patches_per_sample * max(1, rounds * self.num_samples // self.global_batch)

    def batch(self, step: int, first: int = 0, stop: int | None = None) -> BatchSamples:
        """Return rows first .. stop-1 of the global batch of a step, by default all rows."""
        group, echo = divmod(step, self.patches_per_sample)
        start = group * self.global_batch
        positions = np.arange(start + first, start + (self.global_batch if stop is None else stop))
        rounds, offsets = np.divmod(positions, self.num_samples)  # rounds through all samples
        numbers = np.empty_like(positions)
        for number in range(int(rounds[0]), int(rounds[-1]) + 1):
            in_round = rounds == number
            numbers[in_round] = self._numbers(number, offsets[in_round])
        return BatchSamples(rounds * self.patches_per_sample + echo, numbers)

    def batches(self, steps: range, rows: range) -> BatchSamples:
        """Return these rows of the global batches of `steps`, of which there is at least one, one after the other."""
        if self.patches_per_sample == 1 and rows == range(self.global_batch):
            return self.batch(steps.start, 0, len(steps) * self.global_batch)  # batches are consecutive
        epochs, numbers = zip(*(self.batch(step, rows.start, rows.stop) for step in steps), strict=True)
        return BatchSamples(np.concatenate(epochs), np.concatenate(numbers))

    def shard_of(self, number: int) -> tuple[int, int]:
        """Return the index of the shard that holds a sample, and the sample's position in it."""
        shard = bisect_right(self._starts, number) - 1
        return shard, number - self._starts[shard]

    def shards_of(self, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return what `shard_of` returns, for each of these samples."""
        shards = self._first_number.searchsorted(numbers, "right") - 1
        return shards, numbers - self._first_number[shards]

    def position(self, step: int) -> int:
        """Return the position in the sequence of the first sample of a step."""
        return step // self.patches_per_sample * self.global_batch

    def blocks_from(self, step: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield, without end and in order of use, the first step with samples of each block, and the block's shards.

        The first block is the one at the start of `step`; an earlier step may have used it too. The last step
        that uses a block is the first one of the next block (with K patches per sample, its first K steps).
        """
        round_, offset = divmod(self.position(step), self.num_samples)
        for number in count(round_):
            blocks = self.blocks(number)
            for block in range(blocks.at(offset) if number == round_ else 0, len(blocks)):
                position = number * self.num_samples + int(blocks.starts[block])
                yield position // self.global_batch * self.patches_per_sample, blocks.shards(block)

    def blocks(self, epoch: int) -> Blocks:
        """Return the blocks of an epoch or, with several patches per sample, of a round through all samples."""
        return _cached(self._blocks, epoch, self._grouped)

    def _grouped(self, epoch: int) -> Blocks:
        order = shuffled(len(self._samples), self._seed, epoch, _SHARDS)
        order = order[self._samples[order] > 0]
        ends = np.cumsum(self._bytes[order])
        firsts = [0]
        before = 0  # bytes
        while firsts[-1] < len(order):
            firsts.append(max(firsts[-1] + 1, int(ends.searchsorted(before + self.block_bytes, "right"))))
            before = int(ends[firsts[-1] - 1])
        starts = np.concatenate([[0], np.cumsum(self._samples[order])])[firsts]
        return Blocks(order, np.array(firsts), starts)

    def _numbers(self, epoch: int, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the sample numbers at these consecutive offsets in an epoch."""
        blocks = self.blocks(epoch)
        parts, first, end = [], int(offsets[0]), int(offsets[-1]) + 1
        while first < end:
            block = blocks.at(first)
            start, stop = int(blocks.starts[block]), min(end, int(blocks.starts[block + 1]))
            parts.append(self._block_order(epoch, block)[first - start : stop - start])
            first = stop
        return np.concatenate(parts)

    def _block_order(self, epoch: int, block: int) -> npt.NDArray[np.int64]:
        return _cached(self._orders, (epoch, block), self._permuted)

    def _permuted(self, key: tuple[int, int]) -> npt.NDArray[np.int64]:
        epoch, block = key
        shards = self.blocks(epoch).shards(block)
        counts = self._samples[shards]
        offsets = np.arange(int(counts.sum()))  # in the block, shard after shard
        numbers: npt.NDArray[np.int64] = offsets + np.repeat(
            self._first_number[shards] - np.cumsum(counts) + counts, counts
        )
        return numbers[shuffled(len(numbers), self._seed, epoch, _SAMPLES, block)]


def _cached(cache: dict[_Key, _Value], key: _Key, make: Callable[[_Key], _Value]) -> _Value:
    """Return the value of a key, keeping the last two: a batch may span two blocks or epochs. Thread-safe."""
    value = cache.get(key)
    if value is None:
        value = make(key)
        for old in list(cache)[:-1]:
            cache.pop(old, None)
        cache[key] = value
    return value
