"""The photos of a folder, here or in a store: which files there are. Nothing is opened here."""

import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from srshards.errors import UsageError
from srshards.format import Address
from srshards.process.limits import shortage
from srshards.storage.store import file_size, find_files

if TYPE_CHECKING:
    from upath import UPath

# By name, so that listing a million files opens none. HEIC is listed although it cannot be decoded: a folder of phone
# photos must say so, photo by photo, rather than look empty.
PHOTO_EXTENSIONS = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe jfif png webp bmp tif tiff gif ppm pgm pnm avif heic heif".split()  # noqa: SIM905
)


_MAX_PATH_BYTES = 4000  # of 4,096 that the system takes at a time


def printable(path: str) -> str:
    """The path on one line and harmless to a terminal, whatever a file may be called."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in path)


class Photo(NamedTuple):
    """A photo as the file system lists it. `path` is relative to the input, `/`-separated.

    `size` is in bytes, `mtime_ns` in ns; both are -1 for a file that cannot be looked at (a dangling link).
    """

    path: str
    size: int
    mtime_ns: int

    @property
    def class_name(self) -> str:
        """The folder that the photo lies in, relative to the input; `.` for the input itself."""
        return self.path.rpartition("/")[0] or "."


@dataclass
class Listing:
    """What a folder holds: photos in no particular order, and what was passed over.

    `num_links_passed_over` are links to folders that are listed already, loops among them.
    """

    photos: list[Photo] = field(default_factory=list)
    num_ignored: int = 0
    num_links_passed_over: int = 0


def list_photos(root: Address) -> Listing:
    """Every photo below `root`, through symbolic links too; no folder is entered twice.

    Raises UsageError when there is no such folder, a folder in it cannot be listed, or it holds no photo.
    """
    listing = _list_folder(root) if isinstance(root, Path) else _list_store(root)
    if not listing.photos:
        raise UsageError(
            f"no photos in {root}: {listing.num_ignored} other files there. Name the folder of photos with --input. "
            f"Photos are files that end in {' '.join(sorted(PHOTO_EXTENSIONS))}."
        )
    return listing


def _list_store(root: "UPath") -> Listing:
    """One listing of all objects: their sizes and times come with it."""
    listing = Listing()
    try:
        found = list(find_files(root))
    except FileNotFoundError:
        found = []
    for file in found:
        if file.path.endswith("/"):  # how some programs make a folder
            continue
        if os.path.splitext(file.path)[1].lower() in PHOTO_EXTENSIONS:
            listing.photos.append(Photo(*file))
        else:
            listing.num_ignored += 1
    if not found:
        if file_size(root) is not None:
            raise UsageError(f"{root} is a file. --input takes a folder of photos, e.g. s3://bucket/photos.")
        raise UsageError(f"no such folder: {root}. Name the folder of photos with --input (or INPUT= for make).")
    return listing


def _list_folder(root: Path) -> Listing:
    with _listing(str(root)):
        is_there, is_folder = root.exists(), root.is_dir()
    if not is_there:
        raise UsageError(f"no such folder: {root}. Name the folder of photos with --input (or INPUT= for make).")
    if not is_folder:
        raise UsageError(f"{root} is a file. --input takes a folder of photos, e.g. ./OST with mountain/, sky/, ...")
    listing = Listing()
    entered: set[tuple[int, int]] = set()
    links = deque([(str(root), "")])
    while links:  # folders first by their own names, then through links, in an order that the disk has no part in
        folder, prefix = links.popleft()
        with _opened(folder) as descriptor:
            is_known = _identity(descriptor) in entered
        if is_known:
            listing.num_links_passed_over += 1
            continue
        links.extend(sorted(_walk(folder, prefix, entered, listing)))
    return listing


def _walk(folder: str, prefix: str, entered: set[tuple[int, int]], listing: Listing) -> list[tuple[str, str]]:
    """List a folder and all real folders in it. Returns its links to folders, as (path, prefix of their photos)."""
    links = []
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
                elif os.path.splitext(entry.name)[1].lower() in PHOTO_EXTENSIONS:
                    _add(entry, prefix + entry.name, listing)
                else:
                    listing.num_ignored += 1
    return links


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    """A descriptor of the folder, which its entries need for as long as they are looked at."""
    with _listing(folder):
        descriptor = _open(os.fsencode(folder))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: bytes) -> int:
    """Open a folder, however long its path is: photos in it cannot be read, but they have to be counted."""
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
    with _listing(folder), os.scandir(descriptor) as entries:
        return list(entries)


@contextmanager
def _listing(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if shortage(error):
            raise
        raise UsageError(
            f"cannot list {folder}: {error.strerror}. Mend its permissions, or move it out of the input."
        ) from error


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def _add(entry: os.DirEntry[str], path: str, listing: Listing) -> None:
    try:
        status = entry.stat()
    except OSError:  # a dangling link: reading it fails later, and the manifest says why
        listing.photos.append(Photo(path, -1, -1))
        return
    if stat.S_ISREG(status.st_mode):
        listing.photos.append(Photo(path, status.st_size, status.st_mtime_ns))
    else:  # a pipe or a device would never end
        listing.num_ignored += 1
