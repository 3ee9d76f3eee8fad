"""The samples of a shard as the members of a tar, and where each member lies. Equal samples give equal bytes."""

import functools
import tarfile
from collections.abc import Callable, Iterable, Sequence

from srshards.shards.tar_index import Member
from srshards.storage.files import Buffer

BLOCK_BYTES = 512  # what a tar consists of: headers, and contents filled up with zeros
_CHECKSUM = slice(148, 156)  # of a header: the sum of its bytes, this field taken as spaces
_END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)


class TarWriter:
    """Plain uncompressed ustar with fixed mtime, owner and mode. The bytes go to `write`, in pieces.

    `size` is how many there were so far; `index` has the members of each sample.
    """

    def __init__(self, write: Callable[[Sequence[Buffer]], object]) -> None:
        self.size = 0
        self.index: list[list[Member]] = []
        self._write = write

    def add(self, key: str, members: Iterable[tuple[str, Sequence[Buffer]]]) -> int:
        """Append a sample: (extension, content in pieces) for each member. Returns the bytes that it takes."""
        start = self.size
        sample = []
        for extension, pieces in members:
            size = sum(len(piece) for piece in pieces)
            sample.append(Member(extension, self.size + BLOCK_BYTES, size, f"{key}.{extension}"))
            self._write([_header(key, extension, size), *pieces, bytes(-size % BLOCK_BYTES)])
            self.size += BLOCK_BYTES + padded(size)
        self.index.append(sample)
        return self.size - start

    def end(self) -> None:
        """Write the end of the archive."""
        self._write([_END_OF_ARCHIVE])
        self.size += len(_END_OF_ARCHIVE)


def padded(size: int) -> int:
    """What so many bytes take in a tar, without their header."""
    return size + -size % BLOCK_BYTES


def _header(key: str, extension: str, size: int) -> bytes:
    """The ustar header of a member. Headers of one kind differ in key and checksum alone, so only those are made."""
    template, checksum = _header_template(len(key), extension, size)
    digits = key.encode("ascii")
    checksum += sum(digits)
    return digits + template[len(digits) : _CHECKSUM.start] + b"%06o\0 " % checksum + template[_CHECKSUM.stop :]


@functools.lru_cache(maxsize=64)
def _header_template(key_length: int, extension: str, size: int) -> tuple[bytes, int]:
    """A header whose key is zeros, and the checksum that it would have with a key of NUL bytes."""
    member = tarfile.TarInfo(f"{'0' * key_length}.{extension}")  # mode 0644, owner 0:0 without names, mtime 0
    member.size = size
    header = member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    return header, int(header[_CHECKSUM].rstrip(b"\0 "), 8) - key_length * ord("0")
