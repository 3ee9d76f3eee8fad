"""Memory-mapped shards: the index locates the members, and only the pages that are used are read."""

from __future__ import annotations  # `Address` is a string at run time

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
import numpy.typing as npt

from srshards.errors import RunError
from srshards.format import SPLITS, Address, FormatError, Manifest, image_codec, image_extension, load_manifest
from srshards.imaging.codec import NPY_HEADER_BYTES, decode_image, npy_header
from srshards.imaging.pixels import Pixels
from srshards.process.shortages import shortage
from srshards.shards.advice import SAME_COMMAND
from srshards.shards.tar_index import check_samples, load_index
from srshards.storage.output_lock import busy_message
from srshards.storage.store import StoreError, read_bytes


class Origin(NamedTuple):
    """Identity of an opened set of shards: its folder, and a hash of all shards that contain samples."""

    folder: Address
    fingerprint: str


def origin_of(manifest: Manifest) -> Origin:
    """Return the identity of the shards that a manifest lists."""
    records = [record for split in SPLITS for record in manifest.shards if record.split == split and record.samples]
    text = "\n".join(f"{record.name} {record.samples} {record.sha256}" for record in records)
    return Origin(manifest.folder, hashlib.sha256(text.encode()).hexdigest())


def repair_hint(origin: Origin) -> str:
    """Return advice on an invalid shard, after checking whether the set was replaced or is being written."""
    folder = origin.folder
    with suppress(FormatError, OSError, StoreError):
        if origin_of(load_manifest(folder, read_bytes)) != origin:
            return (
                f"not damaged: the shards in {folder} were replaced by a run of shardgen with other settings or photos "
                "after they were opened; start a new run with the new shards, or generate the previous ones again"
            )
    if busy := busy_message(folder):
        return f"not damaged: {busy}"
    return f"run `python -m shardgen verify {folder} --fix`, then {SAME_COMMAND} again"


class DamagedMember(Exception):
    """An image, or another member of a sample, is unusable. The message says which and why."""


@contextmanager
def reading(origin: Origin) -> Iterator[None]:
    """Convert errors of opening or reading a shard to RunError with repair advice."""
    try:
        yield
    except (FormatError, OSError, DamagedMember) as error:
        if reason := shortage(error):  # not the fault of a shard
            raise RunError(reason) from None
        raise RunError(f"{error}; {repair_hint(origin)}") from error


class MappedShard:
    """The images of one shard, by sample position and name.

    `manual_read_ahead` disables the kernel's read-ahead, for callers that use `read_ahead`. `file` is an open
    descriptor of the tar; the object takes ownership, and locks on it live as long as the mapping. `name` is the name
    of the shard in messages, by default its file name. FormatError or OSError when the shard or its index is missing or
    invalid.
    """

    def __init__(
        self, tar: Path, num_samples: int, manual_read_ahead: bool = False, file: int | None = None, name: str = ""
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
        if manual_read_ahead:
            self._map.madvise(mmap.MADV_RANDOM)
        self._bytes = memoryview(self._map)

    @property
    def name(self) -> str:
        """Name of the shard in messages."""
        return self._name

    @property
    def num_bytes(self) -> int:
        return len(self._bytes)

    @property
    def address(self) -> int:
        """Address of the mapping, which lives as long as this object."""
        return np.frombuffer(self._map, np.uint8).ctypes.data

    def __len__(self) -> int:
        return len(self._samples)

    def image(self, position: int, name: str, codec: str, size: int) -> Pixels:
        """Return the image `hr`, `lr`, `lr1`, ... or `up`: size x size x 3 uint8 RGB, a read-only view for `npy`.

        DamagedMember when the member is not such an image. (`npy` pixels have no checksum; `--verify` checks them.)
        """
        extension = image_extension(name, codec)
        member = self._samples[position].get(extension)
        if member is None:
            raise DamagedMember(f"{self._name}: sample {position} has no {extension}")
        content = self._bytes[member.offset : member.offset + member.size]
        image = self._npy(content, size) if extension.endswith(".npy") else decode_image(content)
        if image is None or image.shape != (size, size, 3):
            found = "damaged data" if image is None else " x ".join(map(str, image.shape))
            raise DamagedMember(f"{self._name}: {member.name}: expected {size} x {size} x 3, found {found}")
        return image

    def extents(self, extension: str) -> npt.NDArray[np.int64]:
        """Return offset and size in bytes of a member of each sample, e.g. `hr.npy`: 2 x N, -1 where it is missing."""
        members = (sample.get(extension) for sample in self._samples)
        extents = [(member.offset, member.size) if member else (-1, -1) for member in members]
        return np.ascontiguousarray(np.array(extents, np.int64).reshape(-1, 2).T)

    def in_memory(self, position: int, name: str, codec: str, first: float, last: float) -> bool:
        """Return whether the middle of the fraction `first` .. `last` of an image's bytes is in the page cache."""
        start, stop = self._extent(position, name, codec, first, last)
        try:
            return bool(os.preadv(self._file, [bytearray(1)], (start + stop) // 2, os.RWF_NOWAIT))
        except (OSError, AttributeError):  # not cached, or the system cannot tell: read ahead in both cases
            return False

    def read_ahead(self, position: int, name: str, codec: str, first: float, last: float) -> None:
        """Start reading the fraction `first` .. `last` of an image's bytes into the page cache, without waiting."""
        start, stop = self._extent(position, name, codec, first, last)
        start -= start % mmap.PAGESIZE
        if start < stop:
            with suppress(OSError):  # not supported by the file system
                self._map.madvise(mmap.MADV_WILLNEED, start, stop - start)

    def _extent(self, position: int, name: str, codec: str, first: float, last: float) -> tuple[int, int]:
        """Return start and end of that fraction in the tar: all of a compressed member, nothing of a missing one."""
        member = self._samples[position].get(image_extension(name, codec))
        if member is None:
            return 0, 0
        if image_codec(name, codec) != "npy":
            return member.offset, member.offset + member.size
        begin, size = member.offset + NPY_HEADER_BYTES, max(0, member.size - NPY_HEADER_BYTES)
        return begin + int(first * size), begin + int(last * size)

    def description(self, position: int) -> str:
        """Return the photo and the box of a sample, which together are unique in a folder of shards.

        DamagedMember when its json is invalid.
        """
        try:
            described = json.loads(self.json(position))
            return f"{described['source']} {described['box']}"
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedMember(f"{self._name}: the json of sample {position} is damaged ({error})") from error

    def json(self, position: int) -> bytes:
        """Return the json member of a sample. DamagedMember when it has none."""
        member = self._samples[position].get("json")
        if member is None:
            raise DamagedMember(f"{self._name}: sample {position} has no json")
        return bytes(self._bytes[member.offset : member.offset + member.size])

    def _npy(self, content: memoryview, size: int) -> Pixels | None:
        header = npy_header(size, size)
        if len(content) != len(header) + size * size * 3 or content[: len(header)] != header:
            return None
        return np.frombuffer(content, np.uint8, offset=len(header)).reshape(size, size, 3)
