"""The photos of a folder, here or in a store: which files there are. Nothing is opened."""

from dataclasses import dataclass, field
from typing import NamedTuple

from srshards.errors import UsageError
from srshards.format import Address
from srshards.process.shortages import shortage
from srshards.storage.base import Skipped
from srshards.storage.store import storage_of

# By name, so that listing a million files opens none. HEIC is listed although it cannot be decoded: a folder of phone
# photos must say so, photo by photo, rather than look empty.
PHOTO_EXTENSIONS = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe jfif png webp bmp tif tiff gif ppm pgm pnm avif heic heif".split()  # noqa: SIM905
)


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
    skipped = Skipped()
    try:
        found = storage_of(root).find_files(root, PHOTO_EXTENSIONS, skipped)
        photos = list(map(Photo._make, found))
    except OSError as error:
        if shortage(error):
            raise
        raise UsageError(_not_listed(root, error)) from error
    if not photos:
        raise UsageError(
            f"no photos in {root}: {skipped.files} other files there. Name the folder of photos with --input. "
            f"Photos are files that end in {' '.join(sorted(PHOTO_EXTENSIONS))}."
        )
    return Listing(photos, skipped.files, skipped.links)


def _not_listed(root: Address, error: OSError) -> str:
    if error.filename == str(root) and isinstance(error, FileNotFoundError):
        return f"no such folder: {root}. Name the folder of photos with --input (or INPUT= for make)."
    if error.filename == str(root) and isinstance(error, NotADirectoryError):
        return (
            f"{root} is a file. --input takes a folder of photos, e.g. ./OST with mountain/, sky/, ..., or "
            "s3://bucket/photos."
        )
    return f"cannot list {error.filename}: {error.strerror}. Mend its permissions, or move it out of the input."
