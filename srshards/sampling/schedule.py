"""Which samples make which batch: a pure function of (seed, step), computed without reading a byte of data.

Samples are numbered 0 .. N-1 through the shards in the order of the manifest. An epoch is a permutation of them:

    shards permuted ─▶ grouped into blocks of some shards ─▶ samples permuted within a block

so the shuffle is wide, and what is read at a time (a block) stays small enough for the page cache. The epochs follow
one another in an infinite sequence, of which step n takes the n-th `global_batch` samples: every sample comes exactly
once in every epoch, and what an epoch leaves over begins the next epoch's first batch. Nothing here knows about workers
or ranks: a rank takes its rows of the global batch.

Where decoding a sample is costly, K patches are cut from it at once, for K steps in a row: the sequence goes through K
epochs at a time, and the same `global_batch` samples serve K steps, of which the j-th has the crops of the j-th of
these epochs (data echoing: Choi et al., "Faster Neural Network Training with Data Echoing", 2019, echoed before
augmentation).

Where a sample has N degradations of its HR image, each epoch shows the next one of them, from one that is drawn for the
sample: every N epochs in a row it shows each exactly once.
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

_SHARDS, _SAMPLES = 0, 1  # keep the two kinds of permutations apart
_VARIANT = 4  # keeps this draw of a sample apart from those of its cut

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class BatchSamples(NamedTuple):
    """Rows of a batch: which sample, and in which epoch, which decides its variant, its crop and its flips."""

    epochs: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]

    def variants(self, seed: int, count: int) -> npt.NDArray[np.int64]:
        """Which of the `count` variants of its input each row shows."""
        if count == 1:
            return np.zeros_like(self.numbers)
        return (self.epochs + below(draw(seed, self.numbers, _VARIANT), count)) % count


@dataclass(frozen=True)
class Blocks:
    """The blocks of an epoch: block b has the shards `order[firsts[b] : firsts[b + 1]]`, and its samples stand at the
    places `starts[b]` .. `starts[b + 1] - 1` of the epoch. Shards without samples are in none.
    """

    order: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def shards(self, block: int) -> npt.NDArray[np.int64]:
        return self.order[self.firsts[block] : self.firsts[block + 1]]

    def holding(self, place: int) -> int:
        """The block of the sample at this place of the epoch."""
        return int(self.starts.searchsorted(place, "right")) - 1


class Schedule:
    """The infinite sequence of samples.

    `shard_samples` and `shard_bytes` are those of the training shards, in the manifest's order. So many steps in a row
    as `patches_per_sample` says have the same samples. A block is at most `block_bytes`, or one shard.

    An epoch's shards are permuted when its first batch is asked for, a block's samples likewise. Any other batch costs
    the same whatever the number of shards.
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
        self._starts = array("q", self._first_number.tobytes())  # to bisect in, faster than NumPy's
        self._seed = seed
        self.global_batch = global_batch
        self.patches_per_sample = patches_per_sample
        self.block_bytes = block_bytes or BLOCK_BYTES
        self._blocks: dict[int, Blocks] = {}  # of the epochs asked for last
        self._orders: dict[tuple[int, int], npt.NDArray[np.int64]] = {}  # of the blocks asked for last

    def num_steps(self, epochs: int) -> int:
        """In so many epochs, a multiple of `patches_per_sample`: whole global batches, at least one."""
        rounds = epochs // self.patches_per_sample
        return self.patches_per_sample * max(1, rounds * self.num_samples // self.global_batch)

    def batch(self, step: int, first: int = 0, stop: int | None = None) -> BatchSamples:
        """Rows first .. stop-1 of the global batch of a step (all of them by default)."""
        stretch, echo = divmod(step, self.patches_per_sample)
        start = stretch * self.global_batch
        positions = np.arange(start + first, start + (self.global_batch if stop is None else stop))
        rounds, places = np.divmod(positions, self.num_samples)  # through all samples
        numbers = np.empty_like(positions)
        for number in range(int(rounds[0]), int(rounds[-1]) + 1):
            here = rounds == number
            numbers[here] = self._numbers(number, places[here])
        return BatchSamples(rounds * self.patches_per_sample + echo, numbers)

    def shard_of(self, number: int) -> tuple[int, int]:
        """The shard (its place in the manifest) that holds a sample, and the sample's place in it."""
        shard = bisect_right(self._starts, number) - 1
        return shard, number - self._starts[shard]

    def position(self, step: int) -> int:
        """Where in the sequence the samples of a step begin."""
        return step // self.patches_per_sample * self.global_batch

    def blocks_from(self, step: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Endlessly, in the order of use: the first step that shows samples of a block, and the block's shards.

        It begins with the block that `step` begins in, which an earlier step may have been the first to use. A block is
        needed up to the step that the next one begins with (with K patches per sample: those K steps) and no longer.
        """
        round_, place = divmod(self.position(step), self.num_samples)
        for number in count(round_):
            blocks = self.blocks(number)
            for block in range(blocks.holding(place) if number == round_ else 0, len(blocks)):
                position = number * self.num_samples + int(blocks.starts[block])
                yield position // self.global_batch * self.patches_per_sample, blocks.shards(block)

    def blocks(self, epoch: int) -> Blocks:
        """The blocks of an epoch: of a round through all samples, where several patches are cut from each."""
        return _remembered(self._blocks, epoch, self._grouped)

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

    def _numbers(self, epoch: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The samples at these places of an epoch, which follow one another."""
        blocks = self.blocks(epoch)
        parts, first, end = [], int(places[0]), int(places[-1]) + 1
        while first < end:
            block = blocks.holding(first)
            start, stop = int(blocks.starts[block]), min(end, int(blocks.starts[block + 1]))
            parts.append(self._block_order(epoch, block)[first - start : stop - start])
            first = stop
        return np.concatenate(parts)

    def _block_order(self, epoch: int, block: int) -> npt.NDArray[np.int64]:
        return _remembered(self._orders, (epoch, block), self._permuted)

    def _permuted(self, key: tuple[int, int]) -> npt.NDArray[np.int64]:
        epoch, block = key
        shards = self.blocks(epoch).shards(block)
        counts = self._samples[shards]
        places = np.arange(int(counts.sum()))  # in the block, shard after shard
        numbers: npt.NDArray[np.int64] = places + np.repeat(
            self._first_number[shards] - np.cumsum(counts) + counts, counts
        )
        return numbers[shuffled(len(numbers), self._seed, epoch, _SAMPLES, block)]


def _remembered(known: dict[_Key, _Value], key: _Key, make: Callable[[_Key], _Value]) -> _Value:
    """The value of a key, and of the key before it: a batch that begins in one block or epoch ends in the next.

    Several threads may ask.
    """
    value = known.get(key)
    if value is None:
        value = make(key)
        for former in list(known)[:-1]:
            known.pop(former, None)
        known[key] = value
    return value
