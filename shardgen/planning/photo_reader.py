"""Read the photos of a shard, prefetched, from a local folder or an object store."""

from collections.abc import Callable, Iterator, Sequence

from shardgen.planning.sources import Source
from srshards.errors import PhotoError
from srshards.format import Address
from srshards.imaging.photo import read_bytes
from srshards.storage.store import storage_of


def read_photo(photo: Source, root: Address) -> bytes:
    """Return a photo's bytes. PhotoError when it cannot be read; StoreError when the store's requests fail.

    A StoreError ends the run: a failing network must not make photos count as failed.
    """
    try:
        address = storage_of(root).join(root, photo.path)
    except ValueError as error:
        raise PhotoError(str(error)) from error
    return read_bytes(address, photo.size)


def photos_with_bytes(photos: Sequence[Source], root: Address) -> Iterator[tuple[Source, Callable[[], bytes]]]:
    """Yield each photo with a function that returns its bytes as `read_photo` does; the next photos are prefetched."""
    storage = storage_of(root)
    readers = storage.read_ahead(photos, lambda photo: root / photo.path, lambda photo: read_photo(photo, root))
    return zip(photos, readers, strict=True)
