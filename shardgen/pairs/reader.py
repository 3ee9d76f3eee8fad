"""Read the images of many pairs, with the next files read ahead."""

from collections.abc import Callable, Iterator, Sequence

from shardgen.pairs.source import read_source
from shardgen.planning.sources import Photo
from srshards.format import Address
from srshards.storage.store import storage_of

_File = tuple[Address, Photo]


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
