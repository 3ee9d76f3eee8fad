"""Write samples as tar members and record the member offsets. Equal samples give equal bytes."""

import functools
import tarfile
from collections.abc import Callable, Iterable, Sequence

from srshards.shards.tar_index import Member
from srshards.storage.files import Buffer

BLOCK_BYTES = 512  # tar block: a header, or zero-padded content
_CHECKSUM = slice(148, 156)  # header field: the sum of the header's bytes, with this field taken as spaces
_END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)


class TarWriter:
    """Writer of uncompressed ustar archives with fixed mtime, owner and mode. Output is passed to `write` in pieces.

    `size` is the number of bytes written so far; `index` has the members of each sample.
    """

    def __init__(self, write: Callable[[Sequence[Buffer]], object]) -> None:
        self.size = 0
        self.index: list[list[Member]] = []
        self._write = write

    def add(self, key: str, members: Iterable[tuple[str, Sequence[Buffer]]]) -> int:
        """Append a sample, given (extension, content in pieces) for each member. Return its size in the tar."""
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
        """Write the end-of-archive marker."""
        self._write([_END_OF_ARCHIVE])
        self.size += len(_END_OF_ARCHIVE)


def padded(size: int) -> int:
    """Return the size of a member's content in a tar, including padding and without its header."""
    return size + -size % BLOCK_BYTES


def _header(key: str, extension: str, size: int) -> bytes:
    """Return the ustar header of a member: a cached template with only key and checksum replaced."""
    template, checksum = _header_template(len(key), extension, size)
    digits = key.encode("ascii")
    checksum += sum(digits)
    return digits + template[len(digits) : _CHECKSUM.start] + b"%06o\0 " % checksum + template[_CHECKSUM.stop :]


@functools.lru_cache(maxsize=64)
def _header_template(key_length: int, extension: str, size: int) -> tuple[bytes, int]:
    """Return a header whose key is all zero digits, and the checksum it would have with a key of NUL bytes."""
    member = tarfile.TarInfo(f"{'0' * key_length}.{extension}")  # mode 0644, owner 0:0 without names, mtime 0
    member.size = size
    header = member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    return header, int(header[_CHECKSUM].rstrip(b"\0 "), 8) - key_length * ord("0")
