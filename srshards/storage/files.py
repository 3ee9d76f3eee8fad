"""Files that exist only when they are whole: written under a temporary name, flushed to the disk, then renamed."""

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from srshards.errors import RunError
from srshards.format import Address

Buffer = bytes | bytearray | memoryview

_TEMPORARY_SUFFIX = ".tmp"
_NAME_LETTERS = 40  # of the file's own name in its temporary one: a name ends at 255 bytes
_CHUNK_BYTES = 4 << 20
_ALIGNMENT = 4096  # what O_DIRECT asks of offsets and lengths on every disk in use


def temporary_path(path: Path) -> Path:
    """A hidden name beside `path` that no other process uses, on whichever machine that shares the folder."""
    return path.with_name(f".{path.name[:_NAME_LETTERS]}.{os.getpid()}.{secrets.token_hex(4)}{_TEMPORARY_SUFFIX}")


def is_temporary(path: Path) -> bool:
    """Whether that is what a killed run left half-written."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY_SUFFIX)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed run left half-written. Only for whoever holds the folder's lock."""
    for path in folder.glob(f".*{_TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the path that this yields; at the end of the block it becomes `path`, whole, or nothing changes.

    Makes missing folders. OSError when the disk is full or the folder cannot be written to.
    """
    temporary = temporary_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Make the file hold the content, and its folder if it is missing. OSError when that cannot be."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def writing(path: Address) -> Iterator[None]:
    """RunError that names `path` and the reason, for whatever keeps the block from writing it."""
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:  # the latter: a path that is not UTF-8, from who writes such alone
        raise RunError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


class HashedFile:
    """A large new file: hashed and written by a thread of its own, around the page cache where the system can.

    Copying 256 MB into the page cache and flushing it again costs several times what the disk needs, so full chunks go
    out with O_DIRECT from page-aligned memory, and hashing and writing overlap with making the next pixels. On file
    systems without O_DIRECT the same chunks are written the ordinary way.

    Nothing stands under `path` before `commit`; after `abort`, or an exception out of `write`, nothing ever will.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._temporary = temporary_path(path)
        self._hash = hashlib.sha256()
        self._chunks = [mmap.mmap(-1, _CHUNK_BYTES), mmap.mmap(-1, _CHUNK_BYTES)]
        self._fd = _open_direct(self._temporary)  # last: where memory does not suffice, there is no file yet
        self._views = [memoryview(chunk) for chunk in self._chunks]
        self._filled = 0  # bytes in the chunk that is being filled
        self._under_way: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "shard-writer")

    def write(self, pieces: Iterable[Buffer]) -> None:
        """Append the pieces. OSError (a full disk) may come from an earlier write."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                count = min(len(rest), _CHUNK_BYTES - self._filled)
                self._views[0][self._filled : self._filled + count] = rest[:count]
                self._filled += count
                self.size += count
                rest = rest[count:]
                if self._filled == _CHUNK_BYTES:
                    self._send_chunk()

    def commit(self) -> str:
        """Flush everything to the disk, give the file its name, and return its sha256."""
        try:
            self._wait()
            rest = self._views[0][: self._filled]
            self._hash.update(rest)
            aligned = self._filled - self._filled % _ALIGNMENT
            _write_all(self._fd, rest[:aligned])
            _clear_direct(self._fd)
            _write_all(self._fd, rest[aligned:])
            os.fsync(self._fd)
            os.replace(self._temporary, self.path)
        except BaseException:
            self.abort()
            raise
        self._close()
        return self._hash.hexdigest()

    def abort(self) -> None:
        """Leave nothing behind. Harmless after `commit`."""
        with contextlib.suppress(OSError):
            self._wait()
        self._close()
        self._temporary.unlink(missing_ok=True)

    def _send_chunk(self) -> None:
        self._wait()
        self._under_way = self._thread.submit(self._hash_and_write, self._views[0])
        self._views.reverse()
        self._filled = 0

    def _hash_and_write(self, chunk: memoryview) -> None:
        self._hash.update(chunk)
        _write_all(self._fd, chunk)

    def _wait(self) -> None:
        if self._under_way:
            under_way, self._under_way = self._under_way, None
            under_way.result()

    def _close(self) -> None:
        self._thread.shutdown()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open_direct(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.open(path, flags | getattr(os, "O_DIRECT", 0), 0o644)
    except OSError:
        return os.open(path, flags, 0o644)


def _clear_direct(fd: int) -> bool:
    """Turn O_DIRECT off. False when it was not on."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if not flags & getattr(os, "O_DIRECT", 0):
        return False
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return True


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError as error:  # a file system that took O_DIRECT at opening, or an unaligned rest
            if error.errno != errno.EINVAL or not _clear_direct(fd):
                raise
