"""List the photos of a local folder or an object store, without opening them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from srshards.errors import UsageError
from srshards.format import Address
from srshards.process.shortages import shortage
from srshards.storage.base import Skipped
from srshards.storage.store import storage_of
from srshards.terminal.text import plural

# By name, so that listing a million files opens none. HEIC is listed although it cannot be decoded, so that a folder of
# phone photos yields one failure per photo instead of looking empty.
PHOTO_EXTENSIONS = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe jfif png webp bmp tif tiff gif ppm pgm pnm avif heic heif".split()  # noqa: SIM905
)


def printable(path: str) -> str:
    """Escape control and other non-printable characters, which file names may contain."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in path)


def shown(path: str) -> str:
    """Return a path as an example in a message: printable, and of at most 200 characters."""
    return printable(path)[:200]


class Source(Protocol):
    """What samples are made from: a photo, or a pair, which is identified by its HR image.

    `path`, `size` and `mtime_ns` are those of the photo or the HR image, as in `Photo`.
    """

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def mtime_ns(self) -> int: ...

    @property
    def class_name(self) -> str: ...

    def counterparts(self, scale: int) -> tuple["Photo", ...]:
        """Return the other files that determine the samples at a scale: a pair's LR image, and its upsampled one."""
        ...


class Photo(NamedTuple):
    """A photo as the file system lists it. `path` is relative to the input, `/`-separated.

    `size` is in bytes, `mtime_ns` in ns; both are -1 for a file without a status, e.g. a dangling link.
    """

    path: str
    size: int
    mtime_ns: int

    @property
    def class_name(self) -> str:
        """The photo's folder relative to the input; `.` for the input itself."""
        return self.path.rpartition("/")[0] or "."

    def counterparts(self, scale: int) -> tuple["Photo", ...]:
        return ()


SourceT = TypeVar("SourceT", bound=Source, covariant=True)


@dataclass(frozen=True)
class Listing(Generic[SourceT]):
    """The photos (or pairs) of a folder, in no particular order, and the numbers of other files and of skipped links.

    Links are not followed to folders that are already listed, e.g. in a loop.
    """

    photos: Sequence[SourceT] = ()
    num_ignored: int = 0
    num_links_skipped: int = 0


def list_photos(root: Address) -> Listing[Photo]:
    """List every photo below `root`, following symbolic links but listing no folder twice.

    Raises UsageError when there is no such folder, a folder in it cannot be listed, or it contains no photos.
    """
    return list_images(
        root,
        "photos",
        "pass the folder of photos as --input (make: INPUT=...)",
        "pass a folder of photos as --input, e.g. ./OST with mountain/, sky/, ..., or s3://bucket/photos",
    )


def list_images(root: Address, what: str, advice: str, advice_for_file: str) -> Listing[Photo]:
    """Return `list_photos` with other messages: what was expected, and what to do if it is missing or a file."""
    skipped = Skipped()
    try:
        found = storage_of(root).find_files(root, PHOTO_EXTENSIONS, skipped)
        photos = list(map(Photo._make, found))
    except OSError as error:
        if shortage(error):
            raise
        raise UsageError(_not_listed(root, error, advice, advice_for_file)) from error
    if not photos:
        raise UsageError(
            f"no {what} in {root}: expected files ending in {' '.join(sorted(PHOTO_EXTENSIONS))}, found "
            f"{plural(skipped.files, 'other file')}; {advice}"
        )
    return Listing(photos, skipped.files, skipped.links)


def _not_listed(root: Address, error: OSError, advice_to_pass: str, advice_for_file: str) -> str:
    if error.filename == str(root) and isinstance(error, FileNotFoundError):
        return f"no such folder: {root}; {advice_to_pass}"
    if error.filename == str(root) and isinstance(error, NotADirectoryError):
        return f"{root} is a file; {advice_for_file}"
    advice = "fix its permissions (chmod u+rx), or move it out of the input"
    return f"cannot list {error.filename}: {error.strerror}; {advice}"
