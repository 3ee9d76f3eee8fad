"""What is put into the cache: a tar with the bytes that its manifest promises, and, on request, its images decoded."""

import hashlib
import mmap
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from srshards.errors import RunError
from srshards.format import SPLITS, Address, FormatError, Manifest, Member, ShardRecord, dump_index
from srshards.imaging.codec import NPY_HEADER_BYTES, decode_image, npy_header
from srshards.shards.mapped import mend
from srshards.storage.store import pieces

_TRIES = 3
_READ_BYTES = 1 << 20
_BLOCK = 512
_JSON_BYTES = 2048  # a sample's record, roughly, with what surrounds it in the tar; and so much more for each variant
_MEMBER = re.compile(r"(?P<key>\d{12})\.(?P<extension>[a-z0-9.]+)")


def download(address: Address, record: ShardRecord, file: BinaryIO) -> None:
    """Fill `file` with the shard's bytes. RunError when they are not the manifest's, however often they come.

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
    raise RunError(
        f"{address}: {_TRIES} times its bytes were not those that the manifest has the sha256 of; "
        f"{mend(address.parent)}"
    )


def index_of(tar: Path, num_samples: int) -> list[list[Member]]:
    """Where the members of a tar lie, by sample. FormatError when it is no shard of so many samples."""
    samples: dict[str, list[Member]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for info in archive:
                match = _MEMBER.fullmatch(info.name)
                if match is None or not info.isreg():
                    raise FormatError(f"{info.name[:80]!r} is no member of a sample")
                member = Member(match["extension"], info.offset_data, info.size, info.name)
                samples.setdefault(match["key"], []).append(member)
    except tarfile.TarError as error:
        raise FormatError(f"it is no tar ({error})") from error
    if len(samples) != num_samples:
        raise FormatError(f"it holds {len(samples)} samples instead of {num_samples}")
    return list(samples.values())


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
    """Makes of a shard with compressed images the one that the generator writes with `--codec npy`, to the byte.

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
        pixels = sum(_padded(NPY_HEADER_BYTES + 3 * edge**2) for edge in map(self._edge, images))
        return record.samples * (pixels + _BLOCK * len(images) + _JSON_BYTES * len(images)) + 2 * _BLOCK

    def write(self, raw: Path, index: list[list[Member]], out: BinaryIO) -> tuple[bytes, int, str]:
        """Fill `out`. Its index, size and sha256.

        A member that cannot be decoded stays as it is: for readers, that is an image that is not there.
        """
        sha256, size, decoded = hashlib.sha256(), 0, []
        with open(raw, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            out.seek(0)
            for sample in index:
                line = []
                for member in sample:
                    extension, pixels = self._decoded(member, content[member.offset : member.offset + member.size])
                    name = f"{member.name.partition('.')[0]}.{extension}"
                    line.append(Member(extension, size + _BLOCK, len(pixels), name))
                    info = tarfile.TarInfo(name)
                    info.size = len(pixels)
                    header = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
                    piece = b"".join((header, pixels, bytes(-len(pixels) % _BLOCK)))
                    sha256.update(piece)
                    _write(out, piece)
                    size += len(piece)
                decoded.append(line)
            end = bytes(2 * _BLOCK)
            sha256.update(end)
            _write(out, end)
        out.truncate(size + len(end))
        return dump_index(decoded), size + len(end), sha256.hexdigest()

    def _decoded(self, member: Member, content: bytes) -> tuple[str, bytes]:
        name, _, codec = member.extension.rpartition(".")
        if codec != self.codec:
            return member.extension, content
        edge = self._edge(name)
        pixels = decode_image(memoryview(content))
        if pixels is None or pixels.shape != (edge, edge, 3):
            return member.extension, content
        return f"{name}.npy", npy_header(edge, edge) + pixels.tobytes()

    def _edge(self, image: str) -> int:
        """Of an image in px."""
        return self.hr_size // (self.scale if image.startswith("lr") else 1)


def _padded(size: int) -> int:
    return size + -size % _BLOCK


def _write(file: BinaryIO, content: bytes) -> None:
    """All of it: an unbuffered file may take less at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
