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
from srshards.format import MANIFEST_NAME, SPLITS, Address, Manifest, ShardRecord, lr_name
from srshards.imaging.upsampling import UPSAMPLING_METHODS
from srshards.shards.cached import CachedShards
from srshards.shards.check_shard import check_shard
from srshards.shards.mapped import MappedShard, Origin, origin_of
from srshards.shards.sample import Sample
from srshards.shards.shard_list import ShardList
from srshards.storage.reader_lock import ReaderLock
from srshards.storage.store import local_path

_INPUTS = ("lr", "up")  # possible network inputs

# Each mapped shard uses two of the (usually 1,024) files a process may open, and an index in memory.
_MAX_MAPPED = 200
_MAX_MAPPED_OF_SMALL_CACHE = 4  # mapped shards cannot be evicted


class _Samples(Sequence[Sample]):
    """A sequence of samples. An integer index, possibly negative, returns a sample; a slice returns a list."""

    @abstractmethod
    def _at(self, index: int) -> Sample:
        """Return one sample. IndexError when the index is out of range."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._at(number) for number in range(*index.indices(len(self)))]
        return self._at(index)


class Split(_Samples):
    """The samples of one split, in manifest order. `records` are its non-empty shards.

    Iteration reads shard by shard; a slice returns a list of samples. IndexError when an index is out of range.

    Examples:
        >>> len(shards.train), len(shards.val)
        (39, 1)
        >>> [sample.key for sample in shards.train[:2]]
        ['000000000000', '000000000001']
    """

    def __init__(self, shards: "Shards", name: str) -> None:
        self.name = name
        self.records = shards._records[name]
        self._shards = shards
        self._ends = shards._ends[name]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _at(self, index: int) -> Sample:
        record, position = self.locate(index)
        return Sample(self._shards, record, position)

    def __iter__(self) -> Iterator[Sample]:
        for record in self.records:
            for position in range(record.samples):
                yield Sample(self._shards, record, position)

    def __repr__(self) -> str:
        return f"<Split {self.name} of {self._shards.path}: {len(self):,} samples>"

    def locate(self, index: int) -> tuple[ShardRecord, int]:
        """Return the shard that holds a sample, and the sample's position in it. IndexError when out of range."""
        number = normalized_index(index, len(self), f"{self.name} samples in {self._shards.path}")
        shard = bisect_right(self._ends, number)
        return self.records[shard], number - (self._ends[shard - 1] if shard else 0)


class Shards(_Samples):
    """The shards of one scale, opened with `srshards.open`: a sequence of samples, training then validation.

    `path` is the folder, `manifest` the parsed manifest (`manifest.raw` is the complete JSON object), `train` and `val`
    are the two splits. Samples are read lazily from shards that each process maps for itself, so the object can be
    pickled and used in forked and in spawned processes. It needs no closing. IndexError when an index is out of range.

    Shards are read from `cached` if it is given; otherwise the folder must be local.

    Examples:
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
        self._records = {
            name: tuple(record for record in manifest.shards if record.split == name and record.samples)
            for name in SPLITS
        }
        self._ends = {name: list(accumulate(r.samples for r in records)) for name, records in self._records.items()}
        self._lock: ReaderLock | None = ReaderLock(path)
        self._mapped: dict[str, MappedShard] = {}
        if cached is None:
            self._folder = local_path(path).absolute()  # the working directory may change before samples are read

    # Properties, because attributes would form a reference cycle, and keep the lock until garbage collection.
    @property
    def train(self) -> Split:
        """The training samples."""
        return Split(self, "train")

    @property
    def val(self) -> Split:
        """The validation samples."""
        return Split(self, "val")

    @property
    def scale(self) -> int:
        """HR px per LR px, 2 to 8."""
        return self.manifest.scale

    @property
    def hr_size(self) -> int:
        """Edge length of the HR images in px."""
        return self.manifest.hr_size

    @property
    def codec(self) -> str:
        """Codec of the images as they are read: `npy`, `png`, `webp` or `tlc` (whose LR is `npy`)."""
        return "npy" if self.is_decoded else self.manifest.codec

    @property
    def variants(self) -> int:
        """Number of LR images per training sample; a validation sample has one."""
        return self.manifest.variants

    @property
    def up_method(self) -> str | None:
        """Method by which `up` is computed from LR, or None if it is stored.

        ArgumentError when neither is possible: the manifest of other programs may not name the method.
        """
        if self.manifest.has_up:
            return None
        method = self.manifest.raw["settings"].get("method")
        if method not in UPSAMPLING_METHODS:
            found = f"has the unknown method {method!r:.40}" if method else "does not name the resampling method"
            raise ArgumentError(
                f"{self.path} has no upsampled images, and they cannot be computed from LR: {MANIFEST_NAME} {found} "
                "(settings.method); generate the shards again"
            )
        return str(method)

    @property
    def is_decoded(self) -> bool:
        """Whether compressed images are decoded in the cache."""
        return self.cached is not None and self.cached.is_decoded

    def __len__(self) -> int:
        return len(self.train) + len(self.val)

    def _at(self, index: int) -> Sample:
        number = normalized_index(index, len(self), f"samples in {self.path}")
        in_train = number < len(self.train)
        return self.train[number] if in_train else self.val[number - len(self.train)]

    def __iter__(self) -> Iterator[Sample]:
        yield from self.train
        yield from self.val

    def __repr__(self) -> str:
        counts = f"{len(self.train):,} train, {len(self.val):,} val samples"
        return f"<Shards {self.scale}x: {counts}, HR {self.hr_size} px, {self.codec}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": {}, "_lock": None}  # neither maps nor locks can be pickled

    def split(self, name: str) -> Split:
        """Return the split `train` or `val`. ArgumentError for any other name."""
        if name not in SPLITS:
            raise ArgumentError(f"`split` {name!r}: expected {' or '.join(SPLITS)}")
        return self.train if name == "train" else self.val

    def inputs(self, name: str) -> tuple[str, ...]:
        """Return the names of the members from which a training sample's network inputs are made.

        They are every variant of `lr`, or the one `up` if it is stored. ArgumentError when `up` can neither be read nor
        computed.
        """
        check_input(name)
        if name == "up" and self.up_method is None:
            return ("up",)
        return tuple(map(lr_name, range(self.variants)))

    def verify(self, progress: Callable[[int], object] = lambda num_bytes: None, part: int = 0, parts: int = 1) -> None:
        """Read all shards and check them against the manifest's SHA-256 and their indexes against the tars.

        With a cache, only the cached shards are read, and damaged copies are removed; the others are verified when they
        are fetched. `progress` is called with the number of bytes of each read. `part` of `parts` selects a share of
        the shards, to divide the work among processes. UsageError reports the first invalid shard and how to fix it.

        Examples:
            >>> shards.verify()
        """
        if self.cached:
            self.cached.verify(progress, part, parts)
            return
        for record in (*self.train.records, *self.val.records)[part::parts]:
            check_shard(self.manifest, record, progress)

    def fingerprint(self) -> str:
        """Return a hash that changes when any sample does: a run can only be resumed on the same data."""
        return self.origin.fingerprint

    @cached_property
    def origin(self) -> Origin:
        """Folder and fingerprint of these shards."""
        return origin_of(self.manifest)

    def tar(self, record: ShardRecord) -> Path:
        """Return the local path of a shard, which a cache may still have to fetch."""
        if self.cached:
            return self.cached.tar(record)
        return self._folder / f"{record.name}.tar"

    def train_tars(self) -> ShardList:
        """Return the training shards in a compact form that is cheap to send to workers."""
        tars = list(map(self.tar, self.train.records))
        names = [tar.name.removesuffix(".tar") for tar in tars]
        return ShardList(tars[0].parent, names, [record.samples for record in self.train.records])

    def num_bytes(self, record: ShardRecord) -> int:
        """Return the size of a shard as it is read; an estimate when it is decoded."""
        return self.cached.size(record) if self.cached else record.bytes

    def open(self, record: ShardRecord) -> MappedShard:
        """Map a shard; the caller owns the mapping."""
        return (self.cached.open if self.cached else MappedShard)(self.tar(record), record.samples)

    def mapped(self, record: ShardRecord) -> MappedShard:
        """Return a shard from this process's mappings; map it and keep it if it is not among them."""
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
        total = sum(map(self.cached.size, (*self.train.records, *self.val.records)))
        return _MAX_MAPPED if total < self.cached.cache.limit else _MAX_MAPPED_OF_SMALL_CACHE


def check_input(name: str) -> None:
    """Raise ArgumentError unless the name is `lr` or `up`."""
    if name not in _INPUTS:
        raise ArgumentError(f"`input` {name!r}: expected {' or '.join(map(repr, _INPUTS))}")


def normalized_index(index: int, count: int, what: str) -> int:
    """Return the index as a number in 0 .. count-1, counting from the end if negative. IndexError when out of range."""
    number = as_integer(index)
    if not -count <= number < count:
        raise IndexError(f"index {number} is out of range: there are {count:,} {what}")
    return number % count
