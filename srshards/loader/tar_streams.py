"""Samples of tars that are read from front to back: local files, stores, `pipe:` commands and web addresses."""

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

# By subprocesses, as the `webdataset` package has it. All else is a path, or lies in a store that the project knows.
_OPENED_BY_WEBDATASET = ("pipe", "http", "https", "ftps", "sftp", "scp", "hf")


def stream_samples(url: str, num_samples: int | None, wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """The samples of a tar as `webdataset` groups them: `__key__`, `__url__`, and by extension each member's bytes.

    Only members whose file name is `wanted` are kept. RunError when the tar cannot be read, or ends before
    `num_samples`, where those are known; StoreError when a store does not give it.
    """
    found = 0
    try:
        with closing(_opened(url)) as stream:
            members = tariterators.tar_file_iterator(stream, select_files=wanted)
            for sample in tariterators.group_by_keys({**member, "__url__": url} for member in members):
                yield sample
                found += 1
    except (OSError, TarError, EOFError, ValueError) as error:
        if reason := shortage(error):  # no tar is at fault then
            raise RunError(reason) from error
        raise RunError(f"{url}: cannot be read to its end ({error})") from error
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
        raise FileNotFoundError("there is no such object")
    return io.BufferedReader(_Pieces(pieces(address, size)))


class _Pieces(io.RawIOBase):
    """A large object as its pieces come, each asked for again when its connection breaks."""

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
