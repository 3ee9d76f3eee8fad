"""The bytes of a shard's photos, on their way before they are needed: from a folder here, or from a store."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from shardgen.planning.sources import Photo
from srshards.errors import PhotoError
from srshards.format import Address
from srshards.imaging.photo import announce, check_size, read_bytes
from srshards.storage.ahead import ahead
from srshards.storage.store import read_bytes as read_object

if TYPE_CHECKING:
    from upath import UPath

# Enough to hide a disk's seeks behind the making of pixels.
_PHOTOS_ANNOUNCED = 4
# A store takes its time for each: so many at once hide 100 ms of that behind 12 ms of work per photo.
_PHOTOS_FETCHED_AT_ONCE = 8


def read_photo(photo: Photo, root: Address) -> bytes:
    """A photo's content. PhotoError when there is none; StoreError when the store does not give what it has.

    The latter is no fault of the photo: a photo that is there must never count as failed because a network was.
    """
    if isinstance(root, Path):
        return read_bytes(root / photo.path)
    place = _place(photo.path, root)
    check_size(photo.size)
    try:
        data = read_object(place, photo.size)
    except FileNotFoundError as error:
        raise PhotoError("cannot be read: No such file or directory") from error
    if not data:
        raise PhotoError("empty file")
    return data


def photos_with_bytes(photos: Sequence[Photo], root: Address) -> Iterator[tuple[Photo, Callable[[], bytes]]]:
    """Each photo, and what gives its bytes as `read_photo` does, while the next ones are being read."""
    return _announced(photos, root) if isinstance(root, Path) else _fetched(photos, root)


def _place(path: str, root: "UPath") -> "UPath":
    """Where the object lies. PhotoError for a name that is taken for something else when it is joined or asked for."""
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise PhotoError("its name is no path: a part of it is empty, or dots")
    try:
        place = root / path
    except ValueError as error:
        raise PhotoError("its name reads like an address of another store") from error
    if place.path != f"{root.path.rstrip('/')}/{path}" or "?versionId=" in path:
        raise PhotoError("its name reads like another address")
    return place


def _announced(photos: Sequence[Photo], root: Path) -> Iterator[tuple[Photo, Callable[[], bytes]]]:
    for photo in photos[:_PHOTOS_ANNOUNCED]:
        announce(root / photo.path)
    for number, photo in enumerate(photos):
        for coming in photos[number + _PHOTOS_ANNOUNCED : number + _PHOTOS_ANNOUNCED + 1]:
            announce(root / coming.path)
        yield photo, partial(read_photo, photo, root)


def _fetched(photos: Sequence[Photo], root: "UPath") -> Iterator[tuple[Photo, Callable[[], bytes]]]:
    contents = ahead(lambda photo: read_photo(photo, root), photos, _PHOTOS_FETCHED_AT_ONCE)
    for photo, content in zip(photos, contents, strict=True):
        yield photo, content.result
