"""The bytes of a shard's photos, on their way before they are needed: from a folder here, or from a store."""

from collections.abc import Callable, Iterator, Sequence

from shardgen.planning.sources import Photo
from srshards.errors import PhotoError
from srshards.format import Address
from srshards.imaging.photo import read_bytes
from srshards.storage.store import storage_of


def read_photo(photo: Photo, root: Address) -> bytes:
    """A photo's content. PhotoError when there is none; StoreError when the store does not give what it has.

    The latter is no fault of the photo: a photo that is there must never count as failed because a network was.
    """
    try:
        address = storage_of(root).join(root, photo.path)
    except ValueError as error:
        raise PhotoError(str(error)) from error
    return read_bytes(address, photo.size)


def photos_with_bytes(photos: Sequence[Photo], root: Address) -> Iterator[tuple[Photo, Callable[[], bytes]]]:
    """Each photo, and what gives its bytes as `read_photo` does, while the next ones are being read."""
    storage = storage_of(root)
    readers = storage.in_advance(photos, lambda photo: root / photo.path, lambda photo: read_photo(photo, root))
    return zip(photos, readers, strict=True)
