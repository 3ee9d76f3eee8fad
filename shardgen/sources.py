"""The photos of a folder: which files there are. Nothing is opened here."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from shardgen.errors import UsageError

# By name, so that listing a million files opens none. HEIC is listed although it cannot be decoded: a folder of phone
# photos must say so, photo by photo, rather than look empty.
PHOTO_EXTENSIONS = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe jfif png webp bmp tif tiff gif ppm pgm pnm jp2 avif heic heif".split()  # noqa: SIM905
)


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
    """What a folder holds: photos in no particular order, and how many other files were passed over."""

    photos: list[Photo] = field(default_factory=list)
    num_ignored: int = 0
    num_link_loops: int = 0


def list_photos(root: Path) -> Listing:
    """Every photo below `root`, through symbolic links, each loop of links entered once.

    Raises UsageError when there is no such folder, it cannot be listed, or it holds no photo.
    """
    if not root.exists():
        raise UsageError(f"no such folder: {root}. Name the folder of photos with --input (or INPUT= for make).")
    if not root.is_dir():
        raise UsageError(f"{root} is a file. --input takes a folder of photos, e.g. ./OST with mountain/, sky/, ...")
    listing = Listing()
    _walk(str(root), "", (), listing)
    if not listing.photos:
        raise UsageError(
            f"no photos in {root}: {listing.num_ignored} other files there. "
            f"Photos are files that end in {' '.join(sorted(PHOTO_EXTENSIONS))}."
        )
    return listing


def _walk(folder: str, prefix: str, ancestors: tuple[tuple[int, int], ...], listing: Listing) -> None:
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:
        listing.num_link_loops += 1
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UsageError(f"cannot list {folder}: {error.strerror}. Mend its permissions, or move it out.") from error
    for entry in entries:
        if entry.is_dir():
            _walk(entry.path, f"{prefix}{entry.name}/", (*ancestors, identity), listing)
        elif os.path.splitext(entry.name)[1].lower() not in PHOTO_EXTENSIONS:
            listing.num_ignored += 1
        else:
            _add(entry, prefix + entry.name, listing)


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
