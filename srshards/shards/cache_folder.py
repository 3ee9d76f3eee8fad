"""The cache's folder: file names, size accounting, locking and eviction.

    SHA256.tar, SHA256.idx        a shard, named after its content, so that identical shards share a file
    SHA256.npy.tar, .npy.idx      the same shard with its images decoded
    SHA256.npy.json               size and SHA-256 of the decoded tar
    *.part, *.raw                 incomplete downloads

Other files in the folder are ignored.

All locks are `flock`s, which are released when their process ends. A `.part` is locked exclusively by the process that
fills it; a tar is locked by every process that has it mapped, and locked tars are not evicted. A `.part` has its final
size from the start, so the size of the cache is the sum of its file sizes.
"""

import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO, NamedTuple

from srshards.errors import ArgumentError, RunError
from srshards.format import Address
from srshards.storage.store import storage_of
from srshards.terminal.sizes import format_bytes

RAW_SUFFIX = ".raw"  # a compressed shard being decoded; the size of its `.part` includes it
_PART_SUFFIX = ".part"
_CACHE_FILE = re.compile(r"[0-9a-f]{64}(\.npy)?\.(tar|idx|json|part|raw)")
_PAUSE_S = 0.1


class NoRoomError(RunError):
    """The cache is full, and everything that could be evicted is in use."""


def default_folder() -> Path:
    """Return the default cache folder, after the XDG Base Directory Specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sr-shards"


class _File(NamedTuple):
    name: str
    size: int
    used_ns: int


class CacheFolder:
    """A folder of at most `limit` bytes, by default 90 % of the free space on its disk plus its present size.

    ArgumentError when it cannot be created or written to.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.sweep()
        except OSError as error:
            raise ArgumentError(
                f"`cache` {path}: cannot write there ({error.strerror or error}); pass another folder"
            ) from error
        self.limit = limit or (self.used_bytes() + shutil.disk_usage(self.path).free) * 9 // 10

    def tar(self, name: str) -> Path:
        """Return the path of a tar, whether or not it is cached."""
        return self.path / f"{name}.tar"

    def file(self, name: str, suffix: str) -> Path:
        """Return the path of the file that belongs to a tar and has this suffix."""
        return self.path / (name + suffix)

    def has(self, name: str) -> bool:
        """Return whether a tar is cached."""
        return self.tar(name).exists()

    def used_bytes(self) -> int:
        """Return the total size of the cache's files, including space reserved for incomplete ones."""
        return sum(file.size for file in self._files())

    def open_locked(self, name: str) -> int | None:
        """Open a tar and return its descriptor; it is not evicted while open or mapped. None when not cached."""
        try:
            file = os.open(self.tar(name), os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file).st_nlink == 0:  # evicted while waiting for the lock
            os.close(file)
            return None
        with suppress(OSError):  # another user's file: its last use by that user counts
            os.utime(file)
        return file

    @contextmanager
    def claim(self, name: str) -> Iterator[BinaryIO | None]:
        """Yield the file to fill, exclusively locked; None when the tar is cached. Wait if another process fills it.

        The file is removed at the end of the block unless `finish` was called.
        """
        part = self.file(name, _PART_SUFFIX)
        while True:
            if self.has(name):
                yield None
                return
            with open(part, "rb+", 0, opener=_open_or_create) as file:
                # Polled instead of waiting for the lock: a finished file stays locked by its readers.
                if not (_try_lock(file) and _is_at(file, part)):
                    sleep(_PAUSE_S)
                    continue
                try:
                    yield None if self.has(name) else file
                finally:
                    if _is_at(file, part):
                        part.unlink()
                        self.file(name, RAW_SUFFIX).unlink(missing_ok=True)
                return

    def reserve(self, file: BinaryIO, num_bytes: int, keep: Set[str] = frozenset(), wait_s: float = 0.0) -> None:
        """Make room for a claimed file: evict the least recently used shards, but none of `keep`.

        NoRoomError when there is no room after `wait_s` seconds.
        """
        deadline_s = monotonic() + wait_s
        while True:
            with self._exclusive():
                if self._make_room(num_bytes, keep):
                    file.truncate(num_bytes)
                    return
            if monotonic() > deadline_s:
                raise NoRoomError(
                    f"the cache {self.path} has no room for {format_bytes(num_bytes)}: its limit is "
                    f"{format_bytes(self.limit)} (`cache_bytes`), its disk has "
                    f"{format_bytes(shutil.disk_usage(self.path).free)} free, and the shards in it are in use; "
                    "raise the limit, or wait until other runs have finished"
                )
            sleep(_PAUSE_S)

    def finish(self, file: BinaryIO, name: str, sidecars: dict[str, bytes]) -> None:
        """Rename a claimed file to its tar, after writing its sidecar files (by suffix) and flushing all to disk."""
        os.fsync(file.fileno())
        for suffix, content in sidecars.items():
            with open(self.file(name, suffix), "wb") as small:
                small.write(content)
                small.flush()
                os.fsync(small.fileno())
        os.replace(file.name, self.tar(name))

    def remove(self, name: str) -> bool:
        """Remove a tar unless a process has it mapped. Return whether it no longer exists."""
        try:
            with open(self.tar(name), "rb+") as file:
                if not _try_lock(file):
                    return False
                for suffix in (".tar", ".idx", ".json"):
                    self.file(name, suffix).unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        return True

    def sweep(self) -> None:
        """Remove incomplete files of processes that have ended. Does nothing while the interpreter shuts down."""
        if sys.is_finalizing():  # builtins such as `open` no longer exist; the next run removes the files
            return
        with self._exclusive():
            self._remove_abandoned()

    def _make_room(self, num_bytes: int, keep: Set[str]) -> bool:
        self._remove_abandoned()
        disk = shutil.disk_usage(self.path).free - self._reserved_bytes()
        excess = num_bytes - min(self.limit - self.used_bytes(), disk)
        tars = [file for file in self._files() if file.name.endswith(".tar")]
        evicted: list[str] = []
        for tar in sorted(tars, key=lambda file: file.used_ns):
            name = tar.name.removesuffix(".tar")
            if excess > 0 and name not in keep and self._is_unused(name):
                evicted.append(name)
                excess -= tar.size
        # Evict nothing unless it makes enough room. A tar that was opened in the meantime is not removed.
        return excess <= 0 and all(self.remove(name) for name in evicted)

    def _is_unused(self, name: str) -> bool:
        with suppress(FileNotFoundError), open(self.tar(name), "rb+") as file:
            return _try_lock(file)
        return True

    def _files(self) -> list[_File]:
        files = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # removed in the meantime
                    if _CACHE_FILE.fullmatch(entry.name) and not entry.name.endswith(RAW_SUFFIX):
                        status = entry.stat(follow_symlinks=False)
                        files.append(_File(entry.name, status.st_size, status.st_mtime_ns))
        return files

    def _parts(self) -> list[Path]:
        return [path for path in self.path.glob(f"*{_PART_SUFFIX}") if _CACHE_FILE.fullmatch(path.name)]

    def _reserved_bytes(self) -> int:
        """Return the disk space that incomplete files will still take."""
        reserved = 0
        for part in self._parts():
            with suppress(FileNotFoundError):
                status = part.stat()
                reserved += max(0, status.st_size - 512 * status.st_blocks)
        return reserved

    def _remove_abandoned(self) -> None:
        for part in self._parts():
            with suppress(FileNotFoundError), open(part, "rb+") as file:
                if _try_lock(file) and _is_at(file, part):
                    part.unlink()
                    part.with_suffix(RAW_SUFFIX).unlink(missing_ok=True)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Exclude other processes from removing files and reserving space."""
        with open(self.path / ".lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def cache_for(
    shards: Address, path: Path | None, limit: int | None = None, decoded: bool = False
) -> CacheFolder | None:
    """Return the cache to read shards through: None for local ones, unless a cache is given or images are decoded."""
    if path is None and storage_of(shards).is_local and not decoded:
        return None
    return CacheFolder(path or default_folder(), limit)


def _open_or_create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _try_lock(file: BinaryIO) -> bool:
    """Lock a file exclusively, without waiting. Return whether that succeeded."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
