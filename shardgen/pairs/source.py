"""Read an image of a pair from a folder, an object store or a BasicSR LMDB."""

from shardgen.planning.photo_reader import read_photo
from shardgen.planning.sources import Photo
from srshards.format import Address


def read_source(root: Address, photo: Photo) -> bytes:
    """Return an image's file. PhotoError when it cannot be read; StoreError when the store's requests fail."""
    return read_photo(photo, root)
