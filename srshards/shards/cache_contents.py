"""Fill the cache: download tars and verify their SHA-256, and optionally decode their images."""

import hashlib
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from srshards.format import MANIFEST_NAME, SPLITS, Address, FormatError, Manifest, ShardRecord
from srshards.imaging.codec import NPY_HEADER_BYTES, decode_image, encode
from srshards.shards.tar_index import Member, check_samples, dump_index, index_of_tar
from srshards.shards.tar_writer import BLOCK_BYTES, TarWriter, padded
from srshards.storage.files import Buffer
from srshards.storage.store import pieces

_TRIES = 3
_READ_BYTES = 1 << 20
_JSON_BYTES = 2048  # rough size of a sample's json member with header and padding, per image of the sample


def download(address: Address, record: ShardRecord, file: BinaryIO) -> None:
    """Download a shard into `file`. FormatError when its SHA-256 differs from the manifest at every attempt.

    StoreError or OSError when the download fails.
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
    raise FormatError(f"{address}: SHA-256 differs from {MANIFEST_NAME}, at each of {_TRIES} attempts")


def index_of(file: BinaryIO, address: Address, record: ShardRecord) -> list[list[Member]]:
    """Return the members of the shard in `file`, by sample. FormatError when they do not match the record."""
    file.seek(0)
    samples = index_of_tar(file, address)
    check_samples(samples, address, record.samples, record.bytes)
    return samples


def sha256_of(path: Path, progress: Callable[[int], object]) -> str:
    """Return the SHA-256 of a file. `progress` is called with the number of bytes of each read."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_READ_BYTES):
            sha256.update(chunk)
            progress(len(chunk))
    return sha256.hexdigest()


@dataclass(frozen=True)
class Decoder:
    """Converts a shard with compressed images into the one that the generator writes with `--codec npy`.

    `hr_size` is the edge length of the HR images in px; `images` are the image names of a sample, by split.
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
        """Estimate the size of a decoded shard in bytes: exact for the images, typical for the json members."""
        images = self.images[record.split]
        pixels = sum(BLOCK_BYTES + padded(NPY_HEADER_BYTES + 3 * edge**2) for edge in map(self._edge, images))
        return record.samples * (pixels + _JSON_BYTES * len(images)) + 2 * BLOCK_BYTES

    def write(self, raw: BinaryIO, index: list[list[Member]], out: BinaryIO) -> tuple[bytes, int, str]:
        """Write the tar `raw`, decoded, to `out`. Return its index, size and SHA-256.

        A member that cannot be decoded is copied unchanged; readers then treat the image as missing.
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
        name, _, codec = member.extension.rpartition(".")
        if codec != self.codec:
            return member.extension, [content]
        edge = self._edge(name)
        pixels = decode_image(content)
        if pixels is None or pixels.shape != (edge, edge, 3):
            return member.extension, [content]
        return f"{name}.npy", encode("npy", pixels)

    def _edge(self, image: str) -> int:
        return self.hr_size // (self.scale if image.startswith("lr") else 1)


def _write(file: BinaryIO, content: bytes) -> None:
    """Write everything: a write to an unbuffered file may be partial."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
