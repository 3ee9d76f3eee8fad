"""Open shards through a local cache, fetching those that are missing."""

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
from srshards.storage.retry import StoreError, store_timeout_s

_DECODED = ".npy"  # suffix of the cache names of decoded shards
_TRIES = 5  # to open a shard that another process evicts, or that is damaged


class CacheUsage(NamedTuple):
    """Cache usage of a shard folder: cached shards, size of the cache and bytes still to fetch."""

    shards: int
    num_shards: int
    used_bytes: int
    missing_bytes: int


class _Records:
    """A compact sequence of shard records, a quarter of the size of a list: every worker receives all of it."""

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
    """The shards of a folder, read through a cache. With a decoder, images are decoded once, into the cache.

    It keeps no file open and can be pickled. Every failure is a RunError that says what to do.
    """

    def __init__(
        self, cache: CacheFolder, origin: Origin, records: Sequence[ShardRecord], decoder: Decoder | None = None
    ) -> None:
        self.cache = cache
        self._origin = origin
        self._decoder = decoder
        self._records = _Records(records)
        self._timeout_s = store_timeout_s()

    @property
    def is_decoded(self) -> bool:
        return self._decoder is not None

    def name(self, record: ShardRecord) -> str:
        """Return the name of the shard in the cache."""
        return record.sha256 + _DECODED if self._decoder else record.sha256

    def tar(self, record: ShardRecord) -> Path:
        """Return the path of the shard in the cache, whether or not it has been fetched."""
        return self.cache.tar(self.name(record))

    def size(self, record: ShardRecord) -> int:
        """Return the size of the shard in the cache in bytes; an estimate when it is decoded."""
        return self._decoder.size(record) if self._decoder else record.bytes

    def largest_bytes(self) -> int:
        """Return the size of the largest shard in bytes, before decoding."""
        return max(record.bytes for record in self._records)

    def usage(self) -> CacheUsage:
        """Return how much of the folder is cached."""
        missing = [record for record in self._records if not self.cache.has(self.name(record))]
        num_cached = len(self._records) - len(missing)
        missing_bytes = sum(record.bytes for record in missing)
        return CacheUsage(num_cached, len(self._records), self.cache.used_bytes(), missing_bytes)

    def open(self, tar: Path, num_samples: int, manual_read_ahead: bool = False) -> MappedShard:
        """Map the shard at `tar`, fetching it if necessary. It is not evicted while it is mapped."""
        name = tar.name.removesuffix(".tar")
        record = self._records.of(name.removesuffix(_DECODED))
        for _ in range(_TRIES):
            self.fetch(record, wait_s=self._timeout_s)
            file = self.cache.open_locked(name)
            if file is None:
                continue
            try:
                # The mapping keeps this descriptor, and with it the lock.
                shard = MappedShard(tar, num_samples, manual_read_ahead, file, f"{record.name}.tar")
                if shard.num_bytes == self._expected_bytes(record):
                    return shard
                del shard
            except (FormatError, ValueError, FileNotFoundError):
                pass
            self.cache.remove(name)  # truncated, e.g. by a power failure
        raise RunError(f"{tar} is damaged, and another process is using it; stop that process, then remove the file")

    def fetch(self, record: ShardRecord, keep: Set[str] = frozenset(), wait_s: float = 0.0) -> None:
        """Ensure that a shard is in the cache: download it, or wait for the process that is downloading it.

        RunError when the download fails; NoRoomError when, for `wait_s` seconds, only shards that are in use or in
        `keep` could be evicted.
        """
        name = self.name(record)
        if self.cache.has(name):
            return
        with self._reporting(record), self.cache.claim(name) as file:
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
        """Hash the cached shards and remove damaged ones. `progress` is called with the number of bytes of each read.

        `part` of `parts` selects a share of the shards, to divide the work among processes. RunError when a damaged
        file is in use.
        """
        for record in islice(self._records, part, None, parts):
            name, tar = self.name(record), self.tar(record)
            if not self.cache.has(name):
                continue
            try:
                is_intact = sha256_of(tar, progress) == self._expected_sha256(record)
            except FileNotFoundError:  # evicted in the meantime
                continue
            if not is_intact and not self.cache.remove(name):
                raise RunError(
                    f"{tar} is damaged, and another process is using it; stop that process, then remove the file"
                )

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
        """Decode from the cached undecoded shard, if there is one; remove it if it is damaged."""
        descriptor = self.cache.open_locked(record.sha256)
        if descriptor is None:
            return None
        with open(descriptor, "rb") as tar:  # the lock prevents eviction
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
        """Return size and SHA-256 of a decoded tar; values that no tar has when the file is damaged."""
        try:
            content = json.loads(self.cache.file(self.name(record), ".json").read_bytes())
            return int(content["bytes"]), str(content["sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if shortage(error):
                raise
            return -1, ""

    @contextmanager
    def _reporting(self, record: ShardRecord) -> Iterator[None]:
        address = self._address(record)
        try:
            yield
        except FormatError as error:
            raise RunError(f"{error}; {repair_hint(self._origin)}") from error
        except StoreError as error:
            raise RunError(str(error)) from error
        except FileNotFoundError as error:
            raise RunError(f"{address} is listed in the manifest but missing; {repair_hint(self._origin)}") from error
        except OSError as error:
            full = "; free some disk space, pass another `cache`, or a smaller `cache_bytes`"
            advice = full if error.errno in (ENOSPC, EDQUOT) else ""
            reason = f"{error.strerror or error}{advice}"
            raise RunError(f"cannot copy {address} to the cache {self.cache.path}: {reason}") from error
