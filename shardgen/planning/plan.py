"""Which photo goes into which shard: a pure function of the listing and the settings.

Every photo has a 64-bit place on a line, the hash of (seed, path). For each split the line is cut into a power of two
of equal stretches, and a stretch is a shard. So

- every shard is a random mix of classes;
- `--sample 0.01` takes the first stretch of the line that `--sample 0.1` takes more of: finished shards are kept;
- a photo that comes, goes or changes touches the one shard that it lies in (until the set has doubled, when each
  stretch is halved; two if it is the first of the line, see `place_photos`);
- a photo's split is drawn from a second hash of the same kind, so it is the same in every scale and sample.

The price: shards differ in size by what chance gives, between about half of `--shard-bytes` and it.

A stretch whose samples are too many for a shard is halved, and its halves again, until each fits. The first half keeps
the number and the second gets one beyond those of all stretches, so a photo that is added changes no other shard here,
either.
"""

import bisect
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shardgen.planning.config import Config
from shardgen.planning.sources import Photo
from srshards.errors import UsageError
from srshards.format import MAX_SAMPLES_PER_SHARD, MAX_SHARDS, MIN_SCALE, SPLITS, shard_name

_LINE = 2**64
# Below this many photos per shard chance would leave shards empty, and size would mean little.
_MIN_MEAN_PHOTOS_PER_SHARD = 8
# Bytes of a member over bytes of its pixels, seen on 700 real photos.
_EXPECTED_RATIO = {"npy": 1.0, "png": 0.49, "webp": 0.31}
_OVERHEAD_BYTES_PER_SAMPLE = 4 * 512 + 3 * 256 + 512  # tar headers, padding, json
_OVERHEAD_BYTES_PER_VARIANT = 512 + 256 + 1024  # the same; the parameters of a recipe's steps take most of it
_MAX_MEAN_SAMPLES_PER_SHARD = 20_000  # keys have room for five times that

_MAX_BITS = MAX_SHARDS.bit_length() - 1  # that tell halves apart: there are names for twice as many and some

# How many samples each of a stretch's photos gives; None where they certainly fit into a shard.
Counts = Callable[[Sequence[Photo]], Sequence[int] | None]


@dataclass(frozen=True)
class ShardPlan:
    """The photos of one shard, in their order, whichever scales it is made for."""

    split: str
    number: int
    photos: tuple[Photo, ...]

    @property
    def name(self) -> str:
        return shard_name(self.split, self.number)

    @cached_property
    def photos_digest(self) -> str:
        """Hash of the photos' paths, sizes and times: what the disk says about whether they are the same."""
        digest = hashlib.sha256()
        for photo in self.photos:
            digest.update(os.fsencode(photo.path) + b"\0%d\0%d\n" % (photo.size, photo.mtime_ns))
        return digest.hexdigest()


@dataclass(frozen=True)
class Line:
    """Photos with their places, in the order of these. Arrays, for at ten million an object for each takes gigabytes.

    The n-th of the line is `listed[order[n]]`, stands at `places[n]` (of 2^64) and is for validation if `in_val[n]`.
    """

    listed: Sequence[Photo]
    order: npt.NDArray[np.int64]
    places: npt.NDArray[np.uint64]
    in_val: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.order)

    def first(self, count: int) -> "Line":
        return Line(self.listed, self.order[:count], self.places[:count], self.in_val[:count])

    def ranks(self, split: str) -> npt.NDArray[np.int64]:
        """Which of the line are of a split."""
        return np.flatnonzero(self.in_val == (split == "val"))

    def photos(self, ranks: npt.NDArray[np.int64] | slice = slice(None)) -> tuple[Photo, ...]:
        return tuple(map(self.listed.__getitem__, self.order[ranks].tolist()))


def place_photos(photos: Sequence[Photo], config: Config) -> Line:
    """All photos in the order of their places.

    With two photos or more and a validation share above zero, the first of the order is always in `val` and some photo
    in `train`, so small sets have both.
    """
    prefix = b"%d\0" % config.seed
    digests = bytearray()
    for photo in photos:
        digests += hashlib.blake2b(prefix + os.fsencode(photo.path), digest_size=16).digest()
    places, draws = np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2).T
    order = np.lexsort((draws, places))  # equal in both are only equal paths
    val_below = int(config.val_fraction * _LINE)
    in_val = draws[order] < np.uint64(val_below)
    if len(photos) > 1 and val_below:
        in_val[0] = True
        if in_val.all():
            in_val[-1] = False
    elif len(photos) == 1:
        in_val[0] = False
    return Line(photos, order, places[order], in_val)


def take_sample(line: Line, config: Config) -> Line:
    """The first `config.sample` of the line, and on until it holds both splits where the whole has both."""
    firsts = [int(ranks[0]) for ranks in map(line.ranks, SPLITS) if len(ranks)]
    return line.first(max(1, round(len(line) * config.sample), *(1 + first for first in firsts)))


def expected_sample_bytes(config: Config, scale: int) -> float:
    """What a sample takes in its tar: exact to a block for `npy`, an estimate for the compressed codecs."""
    hr = config.hr_size(scale)
    pixels = 3 * ((1 + config.up) * hr**2 + config.variants * (hr // scale) ** 2)
    overhead = _OVERHEAD_BYTES_PER_SAMPLE
    if config.degradation:
        overhead += config.variants * _OVERHEAD_BYTES_PER_VARIANT
    return pixels * _EXPECTED_RATIO[config.codec] + overhead


def plan_shards(
    photos: Sequence[Photo],
    config: Config,
    samples_per_photo: float = 1.0,
    counts: Counts = lambda photos: None,
) -> list[ShardPlan]:
    """The shards of a folder of photos, in the order of their names.

    `samples_per_photo` is 1 but for tiles, where it is an estimate over the whole folder and `counts` knows better.
    UsageError when that takes more shards than there are names.
    """
    # As at 2x, where a sample takes most, so that a scale that is added later leaves the others as they are.
    bytes_per_sample = expected_sample_bytes(config, MIN_SCALE)
    line = place_photos(photos, config)
    sampled = take_sample(line, config)
    shards = []
    for split in SPLITS:
        of_split = int(np.count_nonzero(line.in_val == (split == "val")))
        exponent = _exponent(of_split, samples_per_photo, bytes_per_sample, config.shard_bytes)
        ranks = sampled.ranks(split)
        further = itertools.count(1 << _MAX_BITS)
        numbers = sampled.places[ranks] >> np.uint64(63 - exponent) >> np.uint64(1)  # by 64 at once would not shift
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        for of_shard in np.split(ranks, cuts) if len(ranks) else []:
            number = int(sampled.places[of_shard[0]]) >> (64 - exponent)
            in_stretch = sampled.photos(of_shard)
            samples = counts(in_stretch)
            if samples is None:
                shards.append(ShardPlan(split, number, in_stretch))
                continue
            for own_number, part in _parts(sampled.places[of_shard].tolist(), samples, number, exponent):
                shards.append(ShardPlan(split, next(further) if own_number is None else own_number, in_stretch[part]))
    if any(shard.number >= MAX_SHARDS for shard in shards):
        raise UsageError(
            f"these photos give more than {MAX_SHARDS:,} shards, which is all that there are names for: choose a "
            "larger --tile-step or --size, or a smaller --sample"
        )
    return sorted(shards, key=lambda shard: shard.name)


def _parts(
    places: Sequence[int], samples: Sequence[int], number: int, num_bits: int
) -> Iterator[tuple[int | None, slice]]:
    """Which photos of a stretch make up a shard, and its number: nearly always all of them, and the stretch's.

    The `places` agree in their first `num_bits` bits. Photos that lie so close together that halving does not separate
    them get further shards without a number of their own (None).
    """
    waiting = [(number, num_bits, 0, len(places))]
    while waiting:
        number, num_bits, first, end = waiting.pop()
        if sum(samples[first:end]) <= MAX_SAMPLES_PER_SHARD:
            yield number, slice(first, end)
        elif num_bits == _MAX_BITS:
            yield number, slice(first, first + 1)
            yield from ((None, slice(one, one + 1)) for one in range(first + 1, end))
        else:
            second = (places[first] >> (64 - num_bits) << 1 | 1) << (63 - num_bits)  # where the second half begins
            middle = bisect.bisect_left(places, second, first, end)
            halves = ((number + (1 << num_bits), middle, end), (number, first, middle))
            waiting += [(number, num_bits + 1, first, end) for number, first, end in halves if first < end]


def _exponent(num_photos: int, samples_per_photo: float, bytes_per_sample: float, shard_bytes: int) -> int:
    """Of two: how many stretches the line of a split is cut into."""
    samples = num_photos * samples_per_photo
    wanted = max(samples * bytes_per_sample / shard_bytes, samples / _MAX_MEAN_SAMPLES_PER_SHARD)
    most = min(num_photos / _MIN_MEAN_PHOTOS_PER_SHARD, MAX_SHARDS)
    return min(math.ceil(math.log2(max(wanted, 1))), math.floor(math.log2(max(most, 1))))
