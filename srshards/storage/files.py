"""Atomic file writes: under a temporary name, flushed to disk, then renamed."""

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
_MAX_NAME_CHARS = 40  # how much of the name a temporary name contains; names are limited to 255 bytes
_CHUNK_BYTES = 4 << 20
_ALIGNMENT = 4096  # sufficient for the offsets and lengths of O_DIRECT on current disks


def temporary_path(path: Path) -> Path:
    """Return a hidden name next to `path`, unique among all processes and machines that share the folder."""
    return path.with_name(f".{path.name[:_MAX_NAME_CHARS]}.{os.getpid()}.{secrets.token_hex(4)}{_TEMPORARY_SUFFIX}")


def is_temporary(path: Path) -> bool:
    """Return whether this is a temporary file, possibly left by a killed run."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY_SUFFIX)


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files of killed runs. The caller must hold the folder's lock."""
    for path in folder.glob(f".*{_TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` at the end of the block, unless an exception is raised.

    Creates missing folders. OSError when the disk is full or the folder is not writable.
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
    """Write a file atomically, creating its folder if necessary. OSError when that fails."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def writing(path: Address) -> Iterator[None]:
    """Convert errors of writing `path` in the block to RunError."""
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:  # the latter for paths that are not UTF-8
        raise RunError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


class HashedFile:
    """A large new file, hashed and written by a separate thread, bypassing the page cache where possible.

    Copying 256 MB to the page cache and flushing it takes several times as long as the disk needs. So full chunks are
    written with O_DIRECT from page-aligned memory, and hashing and writing overlap with computing the next pixels. On
    file systems without O_DIRECT the same chunks are written normally.

    `path` does not exist before `commit`, and is never created after `abort` or an exception from `write`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._temporary = temporary_path(path)
        self._hash = hashlib.sha256()
        self._chunks = [mmap.mmap(-1, _CHUNK_BYTES), mmap.mmap(-1, _CHUNK_BYTES)]
        self._fd = _open_direct(self._temporary)  # after allocating memory, so that a failure leaves no file
        self._views = [memoryview(chunk) for chunk in self._chunks]
        self._filled = 0  # bytes in the current chunk
        self._pending: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "shard-writer")

    def write(self, pieces: Iterable[Buffer]) -> None:
        """Append the pieces. An OSError (full disk) may stem from an earlier write."""
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
        """Flush everything to disk, rename the file to its final name, and return its SHA-256."""
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
        """Remove the temporary file. Harmless after `commit`."""
        with contextlib.suppress(OSError):
            self._wait()
        self._close()
        self._temporary.unlink(missing_ok=True)

    def _send_chunk(self) -> None:
        self._wait()
        self._pending = self._thread.submit(self._hash_and_write, self._views[0])
        self._views.reverse()
        self._filled = 0

    def _hash_and_write(self, chunk: memoryview) -> None:
        self._hash.update(chunk)
        _write_all(self._fd, chunk)

    def _wait(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

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
    """Disable O_DIRECT. Return whether it was enabled."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if not flags & getattr(os, "O_DIRECT", 0):
        return False
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return True


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError as error:  # the file system accepted O_DIRECT only when opening, or the rest is unaligned
            if error.errno != errno.EINVAL or not _clear_direct(fd):
                raise
