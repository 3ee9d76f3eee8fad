"""The files of a folder of this machine and of all folders below it, through links, each folder once."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from srshards.storage.base import Found, PassedOver

_MAX_PATH_BYTES = 4000  # of 4,096 that the system takes at a time


def find_files(root: Path, extensions: Set[str], passed_over: PassedOver) -> Iterator[Found]:
    """Every file of the extensions below `root`. Both numbers are -1 for one that cannot be looked at (a broken link).

    FileNotFoundError or NotADirectoryError when `root` is not a folder; OSError names one that cannot be listed.
    """
    if not root.is_dir():
        code = errno.ENOTDIR if root.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), str(root))
    entered: set[tuple[int, int]] = set()
    links = deque([(str(root), "")])
    while links:  # folders first by their own names, then through links, in an order that the disk has no part in
        folder, prefix = links.popleft()
        with _opened(folder) as descriptor:
            is_known = _identity(descriptor) in entered
        if is_known:
            passed_over.links += 1
            continue
        inside: list[tuple[str, str]] = []
        yield from _walk(folder, prefix, extensions, entered, inside, passed_over)
        links.extend(sorted(inside))


def _walk(
    folder: str,
    prefix: str,
    extensions: Set[str],
    entered: set[tuple[int, int]],
    links: list[tuple[str, str]],
    passed_over: PassedOver,
) -> Iterator[Found]:
    """The files of a folder and of all real folders in it. `links` gets (path, prefix of files) of those to others."""
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        with _opened(folder) as descriptor:
            identity = _identity(descriptor)
            if identity in entered:  # through a link to it or into it
                continue
            entered.add(identity)
            for entry in _entries(descriptor, folder):
                inner = (f"{folder}/{entry.name}", f"{prefix}{entry.name}/")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(inner)
                elif _leads_to_folder(entry):
                    links.append(inner)
                elif os.path.splitext(entry.name)[1].lower() in extensions and (found := _found(entry, prefix)):
                    yield found
                else:
                    passed_over.files += 1


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    """A descriptor of the folder, which its entries need for as long as they are looked at."""
    with _named(folder):
        descriptor = _open(os.fsencode(folder))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: bytes) -> int:
    """Open a folder, however long its path is: files in it cannot be read, but they have to be counted."""
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
    with _named(folder), os.scandir(descriptor) as entries:
        return list(entries)


@contextmanager
def _named(folder: str) -> Iterator[None]:
    """An OSError of the folder has its whole path."""
    try:
        yield
    except OSError as error:
        error.filename = folder
        raise


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def _found(entry: "os.DirEntry[str]", prefix: str) -> Found | None:
    """None for what is not a file: a pipe or a device would never end."""
    try:
        status = entry.stat()
    except OSError:  # a broken link: reading it fails later, and whoever reads says why
        return Found(prefix + entry.name, -1, -1)
    return Found(prefix + entry.name, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
