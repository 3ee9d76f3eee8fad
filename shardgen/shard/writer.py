"""One shard: samples go in, a tar and its index come out, whole or not at all."""

import functools
import tarfile
from collections.abc import Sequence
from pathlib import Path

from srshards.format import Member, ShardRecord, dump_index
from srshards.storage.files import Buffer, HashedFile, write_atomically

_BLOCK = 512
_CHECKSUM = slice(148, 156)  # of a header: the sum of its bytes, this field taken as spaces
_END_OF_ARCHIVE = bytes(2 * _BLOCK)


class ShardWriter:
    """Writes `folder/name.tar` and `folder/name.idx`.

    Plain uncompressed ustar; mtime, owner and mode are fixed, so equal samples give equal bytes.
    """

    def __init__(self, folder: Path, name: str, split: str) -> None:
        self._folder, self._name, self._split = folder, name, split
        self._tar = HashedFile(folder / f"{name}.tar")
        self._index: list[list[Member]] = []

    @property
    def num_samples(self) -> int:
        return len(self._index)

    def add(self, key: str, members: Sequence[tuple[str, Sequence[Buffer]]]) -> int:
        """Append a sample: (extension, content in pieces) for each member. Returns the bytes that it takes."""
        start = self._tar.size
        sample = []
        for extension, pieces in members:
            name, size = f"{key}.{extension}", sum(len(piece) for piece in pieces)
            sample.append(Member(extension, self._tar.size + _BLOCK, size, name))
            self._tar.write([_header(key, extension, size), *pieces, bytes(-size % _BLOCK)])
        self._index.append(sample)
        return self._tar.size - start

    def commit(self) -> ShardRecord | None:
        """Put tar and index in their places. None, and no files, when the shard got no sample."""
        if not self._index:
            self._tar.abort()
            return None
        self._tar.write([_END_OF_ARCHIVE])
        sha256 = self._tar.commit()
        write_atomically(self._folder / f"{self._name}.idx", dump_index(self._index))
        return ShardRecord(self._name, self._split, len(self._index), self._tar.size, sha256)

    def abort(self) -> None:
        self._tar.abort()


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
