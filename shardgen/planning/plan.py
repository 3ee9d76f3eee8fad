"""Assign photos to shards: a pure function of the listing and the settings.

Photos are sorted by a 64-bit hash of (seed, path). For each split, the range of hash values is divided into a power of
two of equal intervals, and the photos of an interval are a shard. Therefore

- every shard is a random mix of classes;
- `--sample 0.01` selects a prefix of the photos that `--sample 0.1` selects, so finished shards are kept;
- adding, removing or changing a photo affects only its own shard (two if it is the first one, see `order_photos`),
  until the number of photos has doubled and every interval is halved;
- a photo's split depends on a second hash of the same kind, so it is the same at every scale and in every `--sample`.

As a consequence, shards vary randomly in size, between about half of `--shard-bytes` and all of it.

An interval with too many samples for a shard is halved, recursively. The first half keeps its number and the second
half gets a number above those of all intervals, so here too an added photo changes no other shard.
"""

import bisect
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shardgen.planning.config import Config
from shardgen.planning.sources import Source
from srshards.errors import UsageError
from srshards.format import MAX_SAMPLES_PER_SHARD, MAX_SHARDS, MIN_SCALE, SPLITS, image_codec, shard_name

_NUM_HASHES = 2**64
# With fewer photos per shard, some shards would be empty by chance, and sizes would vary too much.
_MIN_MEAN_PHOTOS_PER_SHARD = 8
# Size of a member relative to that of its pixels, measured on 700 real photos.
_EXPECTED_RATIO = {"npy": 1.0, "png": 0.49, "webp": 0.31, "tlc": 0.29}
_OVERHEAD_BYTES_PER_SAMPLE = 4 * 512 + 3 * 256 + 512  # tar headers, padding, json
_OVERHEAD_BYTES_PER_VARIANT = 512 + 256 + 1024  # likewise; mostly the parameters of a recipe's steps
_MAX_MEAN_SAMPLES_PER_SHARD = 20_000  # a fifth of the limit of sample keys

_MAX_BITS = MAX_SHARDS.bit_length() - 1  # leading bits that distinguish shards; there are more than 2^_MAX_BITS names

# Number of samples of each photo of an interval; None where they certainly fit into a shard.
Counts = Callable[[Sequence[Source]], Sequence[int] | None]


@dataclass(frozen=True)
class ShardPlan:
    """The photos (or pairs) of one shard, in order; the same for every scale."""

    split: str
    number: int
    photos: tuple[Source, ...]

    @property
    def name(self) -> str:
        return shard_name(self.split, self.number)

    @cached_property
    def photos_digest(self) -> str:
        """Hash of the photos' paths, sizes and modification times, to detect changes."""
        return _digest(self.photos)

    def digest(self, scale: int) -> str:
        """Return a hash of all files from which the shard is made at a scale; of photos alone it is `photos_digest`."""
        counterparts = [file for photo in self.photos for file in photo.counterparts(scale)]
        return f"{self.photos_digest} {_digest(counterparts)}" if counterparts else self.photos_digest


def _digest(files: Iterable[Source]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file.path) + b"\0%d\0%d\n" % (file.size, file.mtime_ns))
    return digest.hexdigest()


@dataclass(frozen=True)
class PhotoOrder:
    """Photos sorted by hash. Arrays, because one object per photo would take gigabytes for ten million photos.

    The n-th photo is `listed[order[n]]`; its hash is `hashes[n]`, and it is a validation photo if `in_val[n]`.
    """

    listed: Sequence[Source]
    order: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    in_val: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.order)

    def first(self, count: int) -> "PhotoOrder":
        return PhotoOrder(self.listed, self.order[:count], self.hashes[:count], self.in_val[:count])

    def positions(self, split: str) -> npt.NDArray[np.int64]:
        """Return the positions of a split's photos in this order."""
        return np.flatnonzero(self.in_val == (split == "val"))

    def photos(self, positions: npt.NDArray[np.int64] | slice = slice(None)) -> tuple[Source, ...]:
        return tuple(map(self.listed.__getitem__, self.order[positions].tolist()))


def order_photos(photos: Sequence[Source], config: Config) -> PhotoOrder:
    """Sort the photos by hash and assign each one to a split.

    With at least two photos and a validation fraction above zero, the first photo is always in `val` and at least one
    is in `train`, so small sets have both splits. All are in `train` if the validation set is a folder of its own.
    """
    prefix = b"%d\0" % config.seed
    digests = bytearray()
    for photo in photos:
        digests += hashlib.blake2b(prefix + os.fsencode(photo.path), digest_size=16).digest()
    hashes, split_hashes = np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2).T
    order = np.lexsort((split_hashes, hashes))  # both are equal only for equal paths
    val_below = int((config.val_fraction or 0.0) * _NUM_HASHES)
    in_val = split_hashes[order] < np.uint64(val_below)
    if len(photos) > 1 and val_below:
        in_val[0] = True
        if in_val.all():
            in_val[-1] = False
    elif len(photos) == 1:
        in_val[0] = False
    return PhotoOrder(photos, order, hashes[order], in_val)


def take_sample(order: PhotoOrder, config: Config) -> PhotoOrder:
    """Return the first `config.sample` of the photos, or more if needed to include a photo of each split."""
    firsts = [int(positions[0]) for positions in map(order.positions, SPLITS) if len(positions)]
    return order.first(max(1, round(len(order) * config.sample), *(1 + first for first in firsts)))


def expected_sample_bytes(config: Config, scale: int) -> float:
    """Return the bytes of a sample in its tar: exact to a block for `npy`, an estimate for compressed codecs."""
    hr = config.hr_size(scale)
    hr_bytes, lr_bytes = 3 * (1 + config.up) * hr**2, 3 * config.variants * (hr // scale) ** 2
    overhead = _OVERHEAD_BYTES_PER_SAMPLE
    if config.degradation:
        overhead += config.variants * _OVERHEAD_BYTES_PER_VARIANT
    lr_codec = image_codec("lr", config.codec)
    return hr_bytes * _EXPECTED_RATIO[config.codec] + lr_bytes * _EXPECTED_RATIO[lr_codec] + overhead


def plan_shards(
    photos: Sequence[Source],
    config: Config,
    samples_per_photo: float = 1.0,
    counts: Counts = lambda photos: None,
) -> list[ShardPlan]:
    """Assign photos to shards. Return the shards in the order of their names.

    `samples_per_photo` is 1 except for tiles, where it is an estimate over all photos; `counts` returns exact numbers
    where needed. UsageError when there are more shards than shard names.
    """
    order = order_photos(photos, config)
    return _plan(take_sample(order, config), order, config, samples_per_photo, counts)


def plan_validation(
    photos: Sequence[Source], config: Config, samples_per_photo: float = 1.0, counts: Counts = lambda photos: None
) -> list[ShardPlan]:
    """Assign the photos of a validation folder (`config.val`) to shards, as `plan_shards`. All of them are used."""
    order = order_photos(photos, config)
    order = replace(order, in_val=np.ones_like(order.in_val))
    return _plan(order, order, config, samples_per_photo, counts)


def _plan(
    sampled: PhotoOrder, order: PhotoOrder, config: Config, samples_per_photo: float, counts: Counts
) -> list[ShardPlan]:
    """Assign the sampled photos of `order` to shards."""
    # Sizes are those at 2x, where samples are largest, so that adding a scale later keeps the others' shards.
    bytes_per_sample = expected_sample_bytes(config, MIN_SCALE)
    shards = []
    for split in SPLITS:
        num_photos = int(np.count_nonzero(order.in_val == (split == "val")))
        num_bits = _num_bits(num_photos, samples_per_photo, bytes_per_sample, config.shard_bytes)
        positions = sampled.positions(split)
        extra_numbers = itertools.count(1 << _MAX_BITS)
        numbers = sampled.hashes[positions] >> np.uint64(63 - num_bits) >> np.uint64(1)  # a shift by 64 is undefined
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        for interval in np.split(positions, cuts) if len(positions) else []:
            number = int(sampled.hashes[interval[0]]) >> (64 - num_bits)
            in_interval = sampled.photos(interval)
            samples = counts(in_interval)
            if samples is None:
                shards.append(ShardPlan(split, number, in_interval))
                continue
            for part_number, part in _parts(sampled.hashes[interval].tolist(), samples, number, num_bits):
                shard_number = next(extra_numbers) if part_number is None else part_number
                shards.append(ShardPlan(split, shard_number, in_interval[part]))
    if any(shard.number >= MAX_SHARDS for shard in shards):
        raise UsageError(
            f"these settings need more than the maximum of {MAX_SHARDS:,} shards; pass a larger --tile-step or --size, "
            "or a smaller --sample"
        )
    return sorted(shards, key=lambda shard: shard.name)


def _parts(
    hashes: Sequence[int], samples: Sequence[int], number: int, num_bits: int
) -> Iterator[tuple[int | None, slice]]:
    """Yield (number, photos) of the shards of an interval: nearly always one with all photos and the same number.

    The `hashes` agree in their first `num_bits` bits. The number is None for additional shards of photos whose hashes
    are too close for halving to separate them.
    """
    pending = [(number, num_bits, 0, len(hashes))]
    while pending:
        number, num_bits, first, end = pending.pop()
        if sum(samples[first:end]) <= MAX_SAMPLES_PER_SHARD:
            yield number, slice(first, end)
        elif num_bits == _MAX_BITS:
            yield number, slice(first, first + 1)
            yield from ((None, slice(one, one + 1)) for one in range(first + 1, end))
        else:
            second = (hashes[first] >> (64 - num_bits) << 1 | 1) << (63 - num_bits)  # first hash of the second half
            middle = bisect.bisect_left(hashes, second, first, end)
            halves = ((number + (1 << num_bits), middle, end), (number, first, middle))
            pending += [(number, num_bits + 1, first, end) for number, first, end in halves if first < end]


def _num_bits(num_photos: int, samples_per_photo: float, bytes_per_sample: float, shard_bytes: int) -> int:
    """Return log2 of the number of intervals of a split."""
    samples = num_photos * samples_per_photo
    wanted = max(samples * bytes_per_sample / shard_bytes, samples / _MAX_MEAN_SAMPLES_PER_SHARD)
    most = min(num_photos / _MIN_MEAN_PHOTOS_PER_SHARD, MAX_SHARDS)
    return min(math.ceil(math.log2(max(wanted, 1))), math.floor(math.log2(max(most, 1))))
