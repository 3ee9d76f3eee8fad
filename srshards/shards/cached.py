"""The shards of a set, wherever it lies, as files of the cache: fetched when they are not there yet."""

import json
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from srshards.errors import RunError
from srshards.format import Address, FormatError, ShardRecord, dump_json
from srshards.process.shortages import shortage
from srshards.shards.cache_contents import Decoder, download, index_of, sha256_of
from srshards.shards.cache_folder import RAW_SUFFIX, CacheFolder
from srshards.shards.mapped import MappedShard, Origin, repair_hint
from srshards.shards.tar_index import dump_index
from srshards.storage.store import StoreError, silence_s

_DECODED = ".npy"  # ends the names of decoded shards
_TRIES = 5  # to open a shard that somebody else removes, or that is damaged


class Present(NamedTuple):
    """What a cache has of a set, and what it holds altogether."""

    shards: int
    of: int
    held_bytes: int
    missing_bytes: int


class _Records:
    """A set's shards, in a quarter of the memory of so many objects: all of them go to every worker."""

    def __init__(self, records: Sequence[ShardRecord]) -> None:
        self._names = np.array([record.name for record in records], np.bytes_)
        self._splits = np.array([record.split for record in records], np.bytes_)
        self._samples = np.array([record.samples for record in records], np.int64)
        self._bytes = np.array([record.bytes for record in records], np.int64)
        self._hashes = np.array([record.sha256 for record in records], np.bytes_)
        self._by_hash = self._hashes.argsort()

    def __len__(self) -> int:
        return len(self._hashes)

    def __iter__(self) -> Iterator[ShardRecord]:
        return map(self._at, range(len(self)))

    def of(self, sha256: str) -> ShardRecord:
        return self._at(int(self._by_hash[self._hashes.searchsorted(sha256.encode(), sorter=self._by_hash)]))

    def _at(self, number: int) -> ShardRecord:
        name, split, sha256 = (texts[number].decode() for texts in (self._names, self._splits, self._hashes))
        return ShardRecord(name, split, int(self._samples[number]), int(self._bytes[number]), sha256)


class CachedShards:
    """Opens a set's shards from the cache. With a decoder they are decoded there, once.

    It has no file open and travels to other processes. Whatever goes wrong is a RunError that says what to do.
    """

    def __init__(
        self, cache: CacheFolder, origin: Origin, records: Sequence[ShardRecord], decoder: Decoder | None = None
    ) -> None:
        self.cache = cache
        self._origin = origin
        self._decoder = decoder
        self._records = _Records(records)
        self._patience_s = silence_s()

    @property
    def is_decoded(self) -> bool:
        return self._decoder is not None

    def name(self, record: ShardRecord) -> str:
        """What the cache calls it."""
        return record.sha256 + _DECODED if self._decoder else record.sha256

    def tar(self, record: ShardRecord) -> Path:
        """Where it lies, once it is there."""
        return self.cache.tar(self.name(record))

    def size(self, record: ShardRecord) -> int:
        """Bytes that it takes there; about, when it is decoded."""
        return self._decoder.size(record) if self._decoder else record.bytes

    def largest_bytes(self) -> int:
        """Of the largest shard as it is fetched."""
        return max(record.bytes for record in self._records)

    def present(self) -> Present:
        """What is there of the set."""
        missing = [record for record in self._records if not self.cache.has(self.name(record))]
        there = len(self._records) - len(missing)
        to_come = sum(record.bytes for record in missing)
        return Present(there, len(self._records), self.cache.held_bytes(), to_come)

    def open(self, tar: Path, num_samples: int, announced: bool = False) -> MappedShard:
        """The shard that is, or will be, at `tar`. It is not removed for as long as its map lives."""
        name = tar.name.removesuffix(".tar")
        record = self._records.of(name.removesuffix(_DECODED))
        for _ in range(_TRIES):
            self.fetch(record, wait_s=self._patience_s)
            file = self.cache.opened(name)
            if file is None:
                continue
            try:
                # Locked through this descriptor, which the map keeps.
                shard = MappedShard(tar, num_samples, announced, file, f"{record.name}.tar")
                if shard.num_bytes == self._expected_bytes(record):
                    return shard
                del shard
            except (FormatError, ValueError, FileNotFoundError):
                pass
            self.cache.remove(name)  # cut off by a power cut, or by hand
        raise RunError(f"{tar}: damaged, and other runs use it; end them, then remove the file")

    def fetch(self, record: ShardRecord, keep: Set[str] = frozenset(), wait_s: float = 0.0) -> None:
        """Have a shard in the cache: from the store, or from whoever is fetching it now.

        RunError when the store does not give it; NoRoomError when nothing but `keep`, and what is in use, could make
        room for `wait_s` seconds.
        """
        name = self.name(record)
        if self.cache.has(name):
            return
        with self._explained(record), self.cache.claimed(name) as file:
            if file is None:
                return
            if self._decoder:
                self.cache.reserve(file, record.bytes + self.size(record), keep, wait_s)
                self._decode(self._decoder, record, file)
            else:
                self.cache.reserve(file, record.bytes, keep, wait_s)
                download(self._address(record), record, file)
                index = index_of(file, self._address(record), record)
                self.cache.finish(file, name, {".idx": dump_index(index)})

    def verify(self, progress: Callable[[int], object], part: int = 0, parts: int = 1) -> None:
        """Hash what is there of the set, and remove what is not what it was; `progress` is told the bytes.

        Of several processes that do, each takes a part.

        RunError when somebody uses a damaged file.
        """
        for record in islice(self._records, part, None, parts):
            name, tar = self.name(record), self.tar(record)
            if not self.cache.has(name):
                continue
            try:
                sound = sha256_of(tar, progress) == self._expected_sha256(record)
            except FileNotFoundError:  # it was evicted meanwhile
                continue
            if not sound and not self.cache.remove(name):
                raise RunError(f"{tar} is damaged, and another run uses it; end that run, then remove the file")

    def _decode(self, decoder: Decoder, record: ShardRecord, file: BinaryIO) -> None:
        name, raw = self.name(record), self.cache.file(self.name(record), RAW_SUFFIX)
        content = self._decoded_from_cache(decoder, record, file)
        if content is None:
            with open(raw, "wb+", buffering=0) as temporary:
                download(self._address(record), record, temporary)
                content = decoder.write(temporary, index_of(temporary, self._address(record), record), file)
            raw.unlink()
        index, size, sha256 = content
        self.cache.finish(file, name, {".idx": index, ".json": dump_json({"bytes": size, "sha256": sha256})})

    def _decoded_from_cache(
        self, decoder: Decoder, record: ShardRecord, file: BinaryIO
    ) -> tuple[bytes, int, str] | None:
        """From the shard as it is, if a run has brought it; a damaged one is removed."""
        kept = self.cache.opened(record.sha256)
        if kept is None:
            return None
        with open(kept, "rb") as tar:  # nobody removes it meanwhile
            if sha256_of(self.cache.tar(record.sha256), lambda num_bytes: None) == record.sha256:
                return decoder.write(tar, index_of(tar, self._address(record), record), file)
        self.cache.remove(record.sha256)
        return None

    def _address(self, record: ShardRecord) -> Address:
        return self._origin.folder / f"{record.name}.tar"

    def _expected_bytes(self, record: ShardRecord) -> int:
        return self._sidecar(record)[0] if self._decoder else record.bytes

    def _expected_sha256(self, record: ShardRecord) -> str:
        return self._sidecar(record)[1] if self._decoder else record.sha256

    def _sidecar(self, record: ShardRecord) -> tuple[int, str]:
        """Size and sha256 of a decoded tar; those of no tar when the file is cut off."""
        try:
            content = json.loads(self.cache.file(self.name(record), ".json").read_bytes())
            return int(content["bytes"]), str(content["sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if shortage(error):
                raise
            return -1, ""

    @contextmanager
    def _explained(self, record: ShardRecord) -> Iterator[None]:
        address = self._address(record)
        try:
            yield
        except FormatError as error:
            raise RunError(f"{error}; {repair_hint(self._origin)}") from error
        except StoreError as error:
            raise RunError(str(error)) from error
        except FileNotFoundError as error:
            raise RunError(f"{address} is missing, but the manifest lists it; {repair_hint(self._origin)}") from error
        except OSError as error:
            full = "; free some, name another `cache`, or give a smaller `cache_bytes`"
            advice = full if error.errno in (ENOSPC, EDQUOT) else ""
            reason = f"{error.strerror or error}{advice}"
            raise RunError(f"cannot bring {address} to the cache {self.cache.path}: {reason}") from error
