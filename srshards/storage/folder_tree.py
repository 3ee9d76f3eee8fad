"""Recursive listing of a local folder, following links, each folder once."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from srshards.storage.base import ListedFile, Skipped

_MAX_PATH_BYTES = 4000  # the system's limit per call is 4,096


def find_files(root: Path, extensions: Set[str], skipped: Skipped) -> Iterator[ListedFile]:
    """Yield all files below `root` with these extensions. Size and time are -1 for broken links.

    FileNotFoundError or NotADirectoryError when `root` is not a folder; OSError for a folder that cannot be listed.
    """
    if not root.is_dir():
        code = errno.ENOTDIR if root.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), str(root))
    entered: set[tuple[int, int]] = set()
    links = deque([(str(root), "")])
    while links:  # real folders first, then linked ones; the order does not depend on the disk
        folder, prefix = links.popleft()
        with _opened(folder) as descriptor:
            is_known = _identity(descriptor) in entered
        if is_known:
            skipped.links += 1
            continue
        inside: list[tuple[str, str]] = []
        yield from _walk(folder, prefix, extensions, entered, inside, skipped)
        links.extend(sorted(inside))


def _walk(
    folder: str,
    prefix: str,
    extensions: Set[str],
    entered: set[tuple[int, int]],
    links: list[tuple[str, str]],
    skipped: Skipped,
) -> Iterator[ListedFile]:
    """Yield the files below a folder without following links; append (path, prefix) of links to folders to `links`."""
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        with _opened(folder) as descriptor:
            identity = _identity(descriptor)
            if identity in entered:  # through a link
                continue
            entered.add(identity)
            for entry in _entries(descriptor, folder):
                inner = (f"{folder}/{entry.name}", f"{prefix}{entry.name}/")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(inner)
                elif _is_link_to_folder(entry):
                    links.append(inner)
                elif os.path.splitext(entry.name)[1].lower() in extensions and (found := _found(entry, prefix)):
                    yield found
                else:
                    skipped.files += 1


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    """Open a folder; the descriptor must stay open while its entries are examined."""
    with _errors_naming(folder):
        descriptor = _open(os.fsencode(folder))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: bytes) -> int:
    """Open a folder whose path may exceed the system's limit: its files cannot be read, but they must be counted."""
    descriptor = None
    while True:
        end = len(path) if len(path) <= _MAX_PATH_BYTES else path.rindex(b"/", 0, _MAX_PATH_BYTES)
        outer = descriptor
        try:
            descriptor = os.open(path[:end], os.O_RDONLY | os.O_DIRECTORY, dir_fd=outer)
        finally:
            if outer is not None:
                os.close(outer)
        path = path[end:].lstrip(b"/")
        if not path:
            return descriptor


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _entries(descriptor: int, folder: str) -> list["os.DirEntry[str]"]:
    with _errors_naming(folder), os.scandir(descriptor) as entries:
        return list(entries)


@contextmanager
def _errors_naming(folder: str) -> Iterator[None]:
    """Set the complete path of the folder in an OSError."""
    try:
        yield
    except OSError as error:
        error.filename = folder
        raise


def _is_link_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into an inaccessible folder
        return False


def _found(entry: "os.DirEntry[str]", prefix: str) -> ListedFile | None:
    """Return None for anything but a regular file: reading a pipe or a device might never end."""
    try:
        status = entry.stat()
    except OSError:  # a broken link: reading it later reports the error
        return ListedFile(prefix + entry.name, -1, -1)
    return ListedFile(prefix + entry.name, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
