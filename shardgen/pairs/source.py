"""List and read the images of pairs: of folders, object stores and LMDBs."""

from collections.abc import Callable, Iterator, Sequence

from shardgen.pairs import lmdb_folder
from shardgen.planning.photo_reader import read_photo
from shardgen.planning.sources import Listing, Photo, Source, list_images
from srshards.format import Address
from srshards.storage.store import storage_of

_File = tuple[Address, Source]


def list_source(root: Address, role: str, option: str) -> Listing[Photo]:
    """Return the images below a root, without opening them.

    `role` (`HR`) and `option` (`--hr`) are for messages. UsageError when there is no such folder or no image in it.
    """
    if lmdb_folder.is_lmdb(root):
        return Listing(lmdb_folder.list_images(root))
    advice = f"pass the folder of {role} images as {option}"
    return list_images(root, f"{role} images", advice, advice)


def read_source(root: Address, photo: Source) -> bytes:
    """Return an image's file; that of a pair is HR. PhotoError when it cannot be read.

    StoreError when a store's requests fail, and UsageError when an LMDB cannot be opened: both end the run.
    """
    if lmdb_folder.is_lmdb(root):
        return lmdb_folder.read_image(root, photo)
    return read_photo(photo, root)


def read_ahead(files: Sequence[_File]) -> Iterator[Callable[[], bytes]]:
    """Yield for each (root, image), in order, a function that returns its bytes as `read_source` does.

    The next files are prefetched as their storage does it; if any is in a store, all are.
    """
    if not files:
        return iter(())
    storages = [storage_of(root) for root in {str(root): root for root, _ in files}.values()]
    storage = next((storage for storage in storages if not storage.is_local), storages[0])
    return storage.read_ahead(files, _address, _read)


def _address(file: _File) -> Address:
    root, photo = file
    return root / photo.path


def _read(file: _File) -> bytes:
    return read_source(*file)
