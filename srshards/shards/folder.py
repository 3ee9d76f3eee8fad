"""The shards of one scale as a sequence of samples, in a training and a validation split."""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from operator import index as as_integer
from pathlib import Path
from typing import Any, overload

from srshards.errors import ArgumentError
from srshards.format import SPLITS, Address, Manifest, ShardRecord, lr_name
from srshards.shards.cached import CachedShards
from srshards.shards.check_shard import check_shard
from srshards.shards.mapped import MappedShard, Origin, origin_of
from srshards.shards.sample import Sample
from srshards.shards.shard_list import ShardList
from srshards.storage.reader_lock import ReaderLock
from srshards.storage.store import local_path

_INPUTS = ("lr", "up")  # what a network may see

# Each has two files open, of the 1,024 that a process usually may, and an index in memory.
_MAX_MAPPED = 200
_MAX_MAPPED_OF_SMALL_CACHE = 4  # which may have to remove what is not mapped


class _Samples(Sequence[Sample]):
    """A sequence of samples: one for a number, which counts from the end when it is negative; a list for a slice."""

    @abstractmethod
    def _at(self, index: int) -> Sample:
        """IndexError when there is no such sample."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._at(number) for number in range(*index.indices(len(self)))]
        return self._at(index)


class Split(_Samples):
    """The samples of a split, in the manifest's order. `records` are its shards, those without samples left out.

    Iterating reads shard after shard; a slice is a list of samples. IndexError for a number that there is not.

    >>> len(shards.train), len(shards.val)
    (39, 1)
    >>> [sample.key for sample in shards.train[:2]]
    ['000000000000', '000000000001']
    """

    def __init__(self, shards: "Shards", name: str) -> None:
        self.name = name
        self.records = shards.records[name]
        self._shards = shards
        self._ends = shards.ends[name]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _at(self, index: int) -> Sample:
        record, place = self.locate(index)
        return Sample(self._shards, record, place)

    def __iter__(self) -> Iterator[Sample]:
        for record in self.records:
            for place in range(record.samples):
                yield Sample(self._shards, record, place)

    def __repr__(self) -> str:
        return f"<Split {self.name} of {self._shards.path}: {len(self):,} samples>"

    def locate(self, index: int) -> tuple[ShardRecord, int]:
        """The shard that holds a sample, and the sample's place in it. IndexError when there is no such sample."""
        number = in_range(index, len(self), f"{self.name} samples in {self._shards.path}")
        shard = bisect_right(self._ends, number)
        return self.records[shard], number - (self._ends[shard - 1] if shard else 0)


class Shards(_Samples):
    """The shards of one scale, opened with `srshards.open`: a sequence of samples, training then validation.

    `path` is where they lie, `manifest` what their manifest says (`manifest.raw` all of it), `train` and `val` are the
    two splits. Samples are read when they are asked for, from shards that each process maps by itself, so a set can be
    pickled, and used in forked and in spawned processes. There is nothing to close. IndexError for a number that there
    is not.

    With `cached`, shards are read from there: otherwise the folder is one of this machine.

    >>> len(shards), shards.scale, shards.hr_size, shards.codec, shards.variants
    (40, 2, 64, 'npy', 1)
    >>> shards[-1].split
    'val'
    >>> shards.manifest.raw["settings"]["method"]
    'cubic'
    """

    def __init__(self, path: Address, manifest: Manifest, cached: CachedShards | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.cached = cached
        self.records = {
            name: tuple(record for record in manifest.shards if record.split == name and record.samples)
            for name in SPLITS
        }
        self.ends = {name: list(accumulate(r.samples for r in records)) for name, records in self.records.items()}
        self._lock: ReaderLock | None = ReaderLock(path)
        self._mapped: dict[str, MappedShard] = {}
        if cached is None:
            self._folder = local_path(path).absolute()  # the working directory may be another when samples are read

    # A split refers to its set. As attributes they would be a cycle, which keeps the lock until it is collected.
    @property
    def train(self) -> Split:
        return Split(self, "train")

    @property
    def val(self) -> Split:
        return Split(self, "val")

    @property
    def scale(self) -> int:
        """HR px per LR px, 2 to 8."""
        return self.manifest.scale

    @property
    def hr_size(self) -> int:
        """Edge of the HR images in px."""
        return self.manifest.hr_size

    @property
    def codec(self) -> str:
        """Of the images as they are read: `npy`, `png` or `webp`."""
        return "npy" if self.is_decoded else self.manifest.codec

    @property
    def variants(self) -> int:
        """LR images of a training sample; a validation sample has one."""
        return self.manifest.variants

    @property
    def is_decoded(self) -> bool:
        """Whether compressed images are decoded in the cache."""
        return self.cached is not None and self.cached.is_decoded

    def __len__(self) -> int:
        return len(self.train) + len(self.val)

    def _at(self, index: int) -> Sample:
        number = in_range(index, len(self), f"samples in {self.path}")
        in_train = number < len(self.train)
        return self.train[number] if in_train else self.val[number - len(self.train)]

    def __iter__(self) -> Iterator[Sample]:
        yield from self.train
        yield from self.val

    def __repr__(self) -> str:
        counts = f"{len(self.train):,} train, {len(self.val):,} val samples"
        return f"<Shards {self.scale}x: {counts}, HR {self.hr_size} px, {self.codec}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": {}, "_lock": None}  # neither travels to other processes

    def split(self, name: str) -> Split:
        """`train` or `val`; ArgumentError for any other name."""
        if name not in SPLITS:
            raise ArgumentError(f"`split` {name!r}: expected {' or '.join(SPLITS)}")
        return self.train if name == "train" else self.val

    def inputs(self, name: str) -> tuple[str, ...]:
        """The members of a training sample that a network may see: each variant of `lr`, or its one `up`.

        ArgumentError when there are none of that name.
        """
        check_input(name)
        if name == "up" and not self.manifest.has_up:
            raise ArgumentError(
                f"`input` up: {self.path} has no upsampled images; generate without --no-up, or take `input` lr"
            )
        return tuple(map(lr_name, range(self.variants))) if name == "lr" else (name,)

    def verify(self, progress: Callable[[int], object] = lambda num_bytes: None, part: int = 0, parts: int = 1) -> None:
        """Read all shards: their sha256 is the manifest's, and their indexes say what the tars hold.

        Of a set with a cache, what is there is read, and a damaged copy is removed; the rest is verified when it comes.
        `progress` is told the bytes that were read; of several processes, each does a part. UsageError names the
        first shard that is not what it should be and the way to mend it.

        >>> shards.verify()
        """
        if self.cached:
            self.cached.verify(progress, part, parts)
            return
        for record in (*self.train.records, *self.val.records)[part::parts]:
            check_shard(self.manifest, record, progress)

    def fingerprint(self) -> str:
        """A hash that changes when any sample of the set does: a run can only be resumed on the same data."""
        return self.origin.fingerprint

    @cached_property
    def origin(self) -> Origin:
        """What messages about damage need to know."""
        return origin_of(self.manifest)

    def tar(self, record: ShardRecord) -> Path:
        """Where a shard lies on this machine, or will lie."""
        if self.cached:
            return self.cached.tar(record)
        return self._folder / f"{record.name}.tar"

    def train_tars(self) -> ShardList:
        """The training shards, as small as they can travel to many workers."""
        tars = list(map(self.tar, self.train.records))
        names = [tar.name.removesuffix(".tar") for tar in tars]
        return ShardList(tars[0].parent, names, [record.samples for record in self.train.records])

    def num_bytes(self, record: ShardRecord) -> int:
        """Of a shard as it is read; about, when it is decoded."""
        return self.cached.size(record) if self.cached else record.bytes

    def open(self, record: ShardRecord) -> MappedShard:
        """A shard, mapped for whoever asks and for as long as they keep it."""
        return (self.cached.open if self.cached else MappedShard)(self.tar(record), record.samples)

    def mapped(self, record: ShardRecord) -> MappedShard:
        """A shard that this process has mapped, or maps now and keeps for the next time."""
        shard = self._mapped.get(record.name)
        if shard is None:
            for name in list(self._mapped)[: max(0, len(self._mapped) + 1 - self._max_mapped)]:
                self._mapped.pop(name, None)
            shard = self._mapped[record.name] = self.open(record)
        return shard

    @cached_property
    def _max_mapped(self) -> int:
        if self.cached is None:
            return _MAX_MAPPED
        whole = sum(map(self.cached.size, (*self.train.records, *self.val.records)))
        return _MAX_MAPPED if whole < self.cached.cache.limit else _MAX_MAPPED_OF_SMALL_CACHE


def check_input(name: str) -> None:
    """ArgumentError unless `lr` or `up` is named."""
    if name not in _INPUTS:
        raise ArgumentError(f"`input` {name!r}: expected {' or '.join(map(repr, _INPUTS))}")


def in_range(index: int, count: int, what: str) -> int:
    """The number that an index means, from the end when it is negative. IndexError when there is none."""
    number = as_integer(index)
    if not -count <= number < count:
        raise IndexError(f"index {number} is out of range: there are {count:,} {what}")
    return number % count
