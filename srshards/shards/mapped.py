"""A shard in memory: the tar is mapped, the index says where members lie, only the bytes that are used are read."""

import hashlib
import json
import mmap
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from srshards.errors import RunError
from srshards.format import SPLITS, Address, FormatError, Manifest, load_manifest
from srshards.imaging.codec import NPY_HEADER_BYTES, decode_image, npy_header
from srshards.imaging.pixels import Pixels
from srshards.process.shortages import shortage
from srshards.shards.tar_index import check_samples, load_index
from srshards.storage.output_lock import being_written
from srshards.storage.store import StoreError, read_bytes


class Origin(NamedTuple):
    """The folder of an opened set, and a hash of all of its shards that hold samples."""

    folder: Address
    fingerprint: str


def origin_of(manifest: Manifest) -> Origin:
    records = [record for split in SPLITS for record in manifest.shards if record.split == split and record.samples]
    text = "\n".join(f"{record.name} {record.samples} {record.sha256}" for record in records)
    return Origin(manifest.folder, hashlib.sha256(text.encode()).hexdigest())


def repair_hint(origin: "Origin | Address") -> str:
    """What to do about a shard that is not what it should be, or whose set has been replaced by another."""
    folder = origin.folder if isinstance(origin, Origin) else origin
    if isinstance(origin, Origin):
        with suppress(FormatError, OSError, StoreError):
            if origin_of(load_manifest(folder, read_bytes)) != origin:
                return (
                    f"nothing is damaged: the shards in {folder} were generated again, with other settings or photos, "
                    "after they were opened here. Begin again with the new ones (a training as a new run), or generate "
                    "them as they were before"
                )
        if output := being_written(folder):
            return f"a shardgen run is replacing the shards in {output}, which were opened here before it began"
    return f"`shardgen verify {folder} --fix`, then generate, makes them again"


class DamagedMember(Exception):
    """One image cannot be used. The message says which and why."""


@contextmanager
def reading(origin: "Origin | Address") -> Iterator[None]:
    """RunError, with what to do about it, when a shard is not what it should be, or cannot be opened here."""
    try:
        yield
    except (FormatError, OSError, DamagedMember) as error:
        if reason := shortage(error):  # no shard is at fault then
            raise RunError(reason) from None
        raise RunError(f"{error}; {repair_hint(origin)}") from error


class MappedShard:
    """The images of one shard, by place and name. `announced`: all that is read is asked for with `read_ahead` before.

    `file` is a descriptor of the tar, if it is open already; it is taken over, and what is locked through it stays
    locked for as long as the map lives. `name` is what messages call the shard, by default its file's name.
    FormatError or OSError when the shard or its index is not there or not what the manifest says.
    """

    def __init__(
        self, tar: Path, num_samples: int, announced: bool = False, file: int | None = None, name: str = ""
    ) -> None:
        if file is not None:
            weakref.finalize(self, os.close, file)
        self._name = name or tar.name
        index = load_index(tar.with_suffix(".idx"))
        if file is None:
            file = os.open(tar, os.O_RDONLY)
            weakref.finalize(self, os.close, file)
        self._file = file
        check_samples(index, tar.with_suffix(".idx"), num_samples, os.fstat(file).st_size)
        self._samples = [{member.extension: member for member in sample} for sample in index]
        try:
            self._map = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise FormatError(f"{tar} cannot be mapped ({error})") from error
        if announced:  # what lies around it is of no use
            self._map.madvise(mmap.MADV_RANDOM)
        self._bytes = memoryview(self._map)

    @property
    def num_bytes(self) -> int:
        return len(self._bytes)

    def __len__(self) -> int:
        return len(self._samples)

    def image(self, place: int, name: str, codec: str, size: int) -> Pixels:
        """The image `hr`, `lr`, `lr1` ... or `up` of a sample: size x size x 3 uint8 RGB, a read-only view for `npy`.

        DamagedMember when its bytes are not such an image. (`npy` pixels carry no checksum: that is for `--verify`.)
        """
        member = self._samples[place].get(f"{name}.{codec}")
        if member is None:
            raise DamagedMember(f"{self._name}: sample {place} has no {name}.{codec}")
        content = self._bytes[member.offset : member.offset + member.size]
        image = self._npy(content, size) if codec == "npy" else decode_image(content)
        if image is None or image.shape != (size, size, 3):
            found = "other bytes" if image is None else "x".join(map(str, image.shape))
            raise DamagedMember(f"{self._name}: {member.name}: expected {size}x{size}x3 px, found {found}")
        return image

    def in_memory(self, place: int, name: str, codec: str, first: float, last: float) -> bool:
        """Whether the middle of what lies between these shares of an image's bytes can be read without the disk."""
        start, stop = self._extent(place, name, codec, first, last)
        try:
            return bool(os.preadv(self._file, [bytearray(1)], (start + stop) // 2, os.RWF_NOWAIT))
        except (OSError, AttributeError):  # it is not; or this system cannot say, and had better be asked to read
            return False

    def read_ahead(self, place: int, name: str, codec: str, first: float, last: float) -> None:
        """Let the system begin to read what lies between these shares of an image's bytes."""
        start, stop = self._extent(place, name, codec, first, last)
        start -= start % mmap.PAGESIZE
        if start < stop:
            with suppress(OSError):  # of a file system that takes no advice
                self._map.madvise(mmap.MADV_WILLNEED, start, stop - start)

    def _extent(self, place: int, name: str, codec: str, first: float, last: float) -> tuple[int, int]:
        """Where that is in the tar; all of it for an image that is compressed, nothing when it is not there."""
        member = self._samples[place].get(f"{name}.{codec}")
        if member is None:
            return 0, 0
        if codec != "npy":
            return member.offset, member.offset + member.size
        begin, size = member.offset + NPY_HEADER_BYTES, max(0, member.size - NPY_HEADER_BYTES)
        return begin + int(first * size), begin + int(last * size)

    def description(self, place: int) -> str:
        """The photo that a sample is of, and the box that was cut from it: no two samples of a set have the same.

        DamagedMember when its json does not say.
        """
        try:
            described = json.loads(self.json(place))
            return f"{described['source']} {described['box']}"
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedMember(f"{self._name}: the json of sample {place} is damaged ({error})") from error

    def json(self, place: int) -> bytes:
        """What stands in the json of a sample. DamagedMember when it has none."""
        member = self._samples[place].get("json")
        if member is None:
            raise DamagedMember(f"{self._name}: sample {place} has no json")
        return bytes(self._bytes[member.offset : member.offset + member.size])

    def _npy(self, content: memoryview, size: int) -> Pixels | None:
        header = npy_header(size, size)
        if len(content) != len(header) + size * size * 3 or content[: len(header)] != header:
            return None
        return np.frombuffer(content, np.uint8, offset=len(header)).reshape(size, size, 3)
