"""List and read the images of pairs: of folders, object stores and LMDBs."""

from shardgen.pairs import lmdb_folder
from shardgen.planning.photo_reader import read_photo
from shardgen.planning.sources import Listing, Photo, list_images
from srshards.format import Address


def list_source(root: Address, role: str, option: str) -> Listing[Photo]:
    """Return the images below a root, without opening them.

    `role` (`HR`) and `option` (`--hr`) are for messages. UsageError when there is no such folder or no image in it.
    """
    if lmdb_folder.is_lmdb(root):
        return Listing(lmdb_folder.list_images(root))
    advice = f"pass the folder of {role} images as {option}"
    return list_images(root, f"{role} images", advice, advice)


def read_source(root: Address, photo: Photo) -> bytes:
    """Return an image's file. PhotoError when it cannot be read.

    StoreError when a store's requests fail, and UsageError when an LMDB cannot be opened: both end the run.
    """
    if lmdb_folder.is_lmdb(root):
        return lmdb_folder.read_image(root, photo)
    return read_photo(photo, root)
