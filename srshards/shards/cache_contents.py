"""What is put into the cache: a tar with the bytes that its manifest promises, and, on request, its images decoded."""

import hashlib
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from srshards.format import SPLITS, Address, FormatError, Manifest, ShardRecord
from srshards.imaging.codec import NPY_HEADER_BYTES, decode_image, encode
from srshards.shards.tar_index import Member, check_samples, dump_index, index_of_tar
from srshards.shards.tar_writer import BLOCK_BYTES, TarWriter, padded
from srshards.storage.files import Buffer
from srshards.storage.store import pieces

_TRIES = 3
_READ_BYTES = 1 << 20
_JSON_BYTES = 2048  # a sample's record, roughly, with what surrounds it in the tar; and so much more for each variant


def download(address: Address, record: ShardRecord, file: BinaryIO) -> None:
    """Fill `file` with the shard's bytes. FormatError when they are not the manifest's, however often they come.

    StoreError or OSError when they do not come.
    """
    for _ in range(_TRIES):
        file.seek(0)
        file.truncate(record.bytes)
        sha256 = hashlib.sha256()
        for piece in pieces(address, record.bytes):
            sha256.update(piece)
            _write(file, piece)
        if sha256.hexdigest() == record.sha256:
            return
    raise FormatError(f"{address}: {_TRIES} times its bytes were not those that the manifest has the sha256 of")


def index_of(file: BinaryIO, address: Address, record: ShardRecord) -> list[list[Member]]:
    """Where the members of a shard's tar lie, by sample, from its bytes in `file`.

    FormatError when these are not a tar of the samples that the record tells of.
    """
    file.seek(0)
    samples = index_of_tar(file, address)
    check_samples(samples, address, record.samples, record.bytes)
    return samples


def sha256_of(path: Path, progress: Callable[[int], object]) -> str:
    """`progress` is told the bytes that were hashed."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_READ_BYTES):
            sha256.update(chunk)
            progress(len(chunk))
    return sha256.hexdigest()


@dataclass(frozen=True)
class Decoder:
    """Makes of a shard with compressed images the one that the generator writes with `--codec npy`.

    `hr_size` is the edge of the HR images in px; `images` are those of a sample, by split.
    """

    codec: str
    hr_size: int
    scale: int
    images: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, manifest: Manifest) -> "Decoder":
        images = {split: manifest.images(split) for split in SPLITS}
        return cls(manifest.codec, manifest.hr_size, manifest.scale, images)

    def size(self, record: ShardRecord) -> int:
        """About how many bytes a decoded shard has: the images exactly, their records as they usually are."""
        images = self.images[record.split]
        pixels = sum(BLOCK_BYTES + padded(NPY_HEADER_BYTES + 3 * edge**2) for edge in map(self._edge, images))
        return record.samples * (pixels + _JSON_BYTES * len(images)) + 2 * BLOCK_BYTES

    def write(self, raw: BinaryIO, index: list[list[Member]], out: BinaryIO) -> tuple[bytes, int, str]:
        """Fill `out` from the tar `raw`. Its index, size and sha256.

        A member that cannot be decoded stays as it is: for readers, that is an image that is not there.
        """
        sha256 = hashlib.sha256()

        def write(pieces: Sequence[Buffer]) -> None:
            content = b"".join(pieces)
            sha256.update(content)
            _write(out, content)

        out.seek(0)
        tar = TarWriter(write)
        with mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for sample in index:
                key = sample[0].name.partition(".")[0]
                tar.add(key, (self._decoded(one, content[one.offset : one.offset + one.size]) for one in sample))
        tar.end()
        out.truncate(tar.size)
        return dump_index(tar.index), tar.size, sha256.hexdigest()

    def _decoded(self, member: Member, content: bytes) -> tuple[str, Sequence[Buffer]]:
        """Extension and content of the member in a decoded shard."""
        name, _, codec = member.extension.rpartition(".")
        if codec != self.codec:
            return member.extension, [content]
        edge = self._edge(name)
        pixels = decode_image(content)
        if pixels is None or pixels.shape != (edge, edge, 3):
            return member.extension, [content]
        return f"{name}.npy", encode("npy", pixels)

    def _edge(self, image: str) -> int:
        """Of an image in px."""
        return self.hr_size // (self.scale if image.startswith("lr") else 1)


def _write(file: BinaryIO, content: bytes) -> None:
    """All of it: an unbuffered file may take less at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
