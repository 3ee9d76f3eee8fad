"""The cache's folder: what lies in it, how much room that takes, and who may remove what.

    SHA256.tar, SHA256.idx        a shard, named after its bytes, so that equal shards of two sets share a file
    SHA256.npy.tar, .npy.idx      the same with its images decoded
    SHA256.npy.json               size and sha256 of the decoded tar
    *.part, *.raw                 under way

Whatever else lies there is neither counted nor touched.

All locks are `flock`s, which die with whoever holds them. A `.part` is locked by the one process that fills it; a
tar is locked by all that have it mapped, for as long as their maps live, and what is locked is not removed. A `.part`
is as large as what will come of it from the beginning on, so that the sizes in the folder are the account of its room.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO, NamedTuple

from srshards.errors import ArgumentError, RunError
from srshards.format import Address
from srshards.storage.store import storage_of
from srshards.terminal.sizes import format_bytes

RAW_SUFFIX = ".raw"  # beside a `.part` that has room for it too
_PART_SUFFIX = ".part"
_OWN = re.compile(r"[0-9a-f]{64}(\.npy)?\.(tar|idx|json|part|raw)")
_PAUSE_S = 0.1


class NoRoomError(RunError):
    """Everything that could be removed is in use."""


def default_folder() -> Path:
    """Where caches lie by the XDG Base Directory Specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sr-shards"


class _Held(NamedTuple):
    name: str
    size: int
    used_ns: int


class CacheFolder:
    """A folder of at most `limit` bytes, by default what its disk has free and what it holds, less a tenth.

    ArgumentError when it cannot be made or written to.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._remove_abandoned()
        except OSError as error:
            raise ArgumentError(
                f"`cache` {path}: cannot write there ({error.strerror or error}); name another folder"
            ) from error
        self.limit = limit or (self.held_bytes() + shutil.disk_usage(self.path).free) * 9 // 10

    def tar(self, name: str) -> Path:
        return self.path / f"{name}.tar"

    def file(self, name: str, suffix: str) -> Path:
        return self.path / (name + suffix)

    def has(self, name: str) -> bool:
        return self.tar(name).exists()

    def held_bytes(self) -> int:
        return sum(size for _, size, _ in self._held())

    def opened(self, name: str) -> int | None:
        """A descriptor of a tar, which stays there for as long as it is open or mapped. None when it is not there."""
        try:
            file = os.open(self.tar(name), os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file).st_nlink == 0:  # it went while we waited
            os.close(file)
            return None
        with suppress(OSError):  # of another user's file, which then counts as used when that user last did
            os.utime(file)
        return file

    @contextmanager
    def claimed(self, name: str) -> Iterator[BinaryIO | None]:
        """The file to be filled, which nobody else has; None when the tar is there. Waits for whoever fills it now.

        What is not `finish`ed at the end of the block goes.
        """
        part = self.file(name, _PART_SUFFIX)
        while True:
            if self.has(name):
                yield None
                return
            with open(part, "rb+", 0, opener=_open_or_make) as file:
                # Not waited for: once it is finished, it is locked by all that read it.
                if not (_locked(file) and _is_at(file, part)):
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
        """Make room for a claimed file of so many bytes: what was used longest ago goes, but nothing of `keep`.

        NoRoomError when there is none after `wait_s` seconds.
        """
        until_s = monotonic() + wait_s
        while True:
            with self._alone():
                if self._make_room(num_bytes, keep):
                    file.truncate(num_bytes)
                    return
            if monotonic() > until_s:
                raise NoRoomError(
                    f"the cache {self.path} has no room for {format_bytes(num_bytes)}: it may have "
                    f"{format_bytes(self.limit)} (`cache_bytes`), its disk has "
                    f"{format_bytes(shutil.disk_usage(self.path).free)} free, and too much of what lies in it is in "
                    "use; give it more, or wait until other runs have ended"
                )
            sleep(_PAUSE_S)

    def finish(self, file: BinaryIO, name: str, beside: dict[str, bytes]) -> None:
        """Put a claimed file in its place, with small files beside it, by suffix. All are on the disk before."""
        os.fsync(file.fileno())
        for suffix, content in beside.items():
            with open(self.file(name, suffix), "wb") as small:
                small.write(content)
                small.flush()
                os.fsync(small.fileno())
        os.replace(file.name, self.tar(name))

    def remove(self, name: str) -> bool:
        """Whether a tar is gone now. It stays when somebody has it mapped."""
        try:
            with open(self.tar(name), "rb+") as file:
                if not _locked(file):
                    return False
                for suffix in (".tar", ".idx", ".json"):
                    self.file(name, suffix).unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        return True

    def sweep(self) -> None:
        """Remove what processes left half-written that are no more."""
        with self._alone():
            self._remove_abandoned()

    def _make_room(self, num_bytes: int, keep: Set[str]) -> bool:
        self._remove_abandoned()
        disk = shutil.disk_usage(self.path).free - self._promised_bytes()
        excess = num_bytes - min(self.limit - self.held_bytes(), disk)
        tars = [held for held in self._held() if held.name.endswith(".tar")]
        leaving: list[str] = []
        for tar in sorted(tars, key=lambda held: held.used_ns):
            name = tar.name.removesuffix(".tar")
            if excess > 0 and name not in keep and self._is_unused(name):
                leaving.append(name)
                excess -= tar.size
        # Nothing goes in vain; what is opened meanwhile stays.
        return excess <= 0 and all(self.remove(name) for name in leaving)

    def _is_unused(self, name: str) -> bool:
        with suppress(FileNotFoundError), open(self.tar(name), "rb+") as file:
            return _locked(file)
        return True

    def _held(self) -> list[_Held]:
        held = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # it went meanwhile
                    if _OWN.fullmatch(entry.name) and not entry.name.endswith(RAW_SUFFIX):
                        status = entry.stat(follow_symlinks=False)
                        held.append(_Held(entry.name, status.st_size, status.st_mtime_ns))
        return held

    def _parts(self) -> list[Path]:
        return [path for path in self.path.glob(f"*{_PART_SUFFIX}") if _OWN.fullmatch(path.name)]

    def _promised_bytes(self) -> int:
        """What files under way will still take of the disk."""
        promised = 0
        for part in self._parts():
            with suppress(FileNotFoundError):
                status = part.stat()
                promised += max(0, status.st_size - 512 * status.st_blocks)
        return promised

    def _remove_abandoned(self) -> None:
        for part in self._parts():
            with suppress(FileNotFoundError), open(part, "rb+") as file:
                if _locked(file) and _is_at(file, part):
                    part.unlink()
                    part.with_suffix(RAW_SUFFIX).unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Among all that make room."""
        with open(self.path / ".lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def cache_for(
    shards: Address, path: Path | None, limit: int | None = None, decoded: bool = False
) -> CacheFolder | None:
    """The cache for a set: None for one that lies on this machine, unless a folder is named or images are decoded."""
    if path is None and storage_of(shards).is_local and not decoded:
        return None
    return CacheFolder(path or default_folder(), limit)


def _open_or_make(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _locked(file: BinaryIO) -> bool:
    """Whether nobody else has a lock on it, and we have now."""
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
