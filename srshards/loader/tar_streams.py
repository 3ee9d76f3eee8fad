"""Read samples sequentially from tars: local files, object stores, `pipe:` commands and URLs."""

import io
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tarfile import TarError
from typing import IO, Any

import webdataset as wds
from webdataset import tariterators

from srshards.errors import RunError
from srshards.process.shortages import shortage
from srshards.storage.store import file_size, parse_address, pieces

# Opened by the `webdataset` package, in subprocesses. Everything else is a path or an object-store address.
_OPENED_BY_WEBDATASET = ("pipe", "http", "https", "ftps", "sftp", "scp", "hf")


def stream_samples(url: str, num_samples: int | None, wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar as `webdataset` groups them: `__key__`, `__url__`, and the members by extension.

    `wanted` selects members by file name. RunError when the tar cannot be read or does not have `num_samples` samples
    (if given); StoreError when a store fails.
    """
    found = 0
    try:
        with closing(_opened(url)) as stream:
            members = tariterators.tar_file_iterator(stream, select_files=wanted)
            for sample in tariterators.group_by_keys({**member, "__url__": url} for member in members):
                yield sample
                found += 1
    except (OSError, TarError, EOFError, ValueError) as error:
        if reason := shortage(error):  # not the fault of the tar
            raise RunError(reason) from error
        raise RunError(f"{url}: cannot read it to the end ({error})") from error
    if num_samples not in (None, found):
        raise RunError(f"{url}: expected {num_samples:,} samples as in the manifest, found {found:,}")


def _opened(url: str) -> IO[bytes]:
    if url.partition(":")[0] in _OPENED_BY_WEBDATASET:
        stream: IO[bytes] = wds.gopen(url)
        return stream
    address = parse_address(url)
    if isinstance(address, Path):
        return open(address, "rb")
    size = file_size(address)
    if size is None:
        raise FileNotFoundError("no such object")
    return io.BufferedReader(_Pieces(pieces(address, size)))


class _Pieces(io.RawIOBase):
    """A file-like object over the pieces of a large object, which are requested again when a connection breaks."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
