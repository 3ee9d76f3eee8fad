"""Patches of the images of mapped shards, copied or decoded by the compiled core."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srshards import native
from srshards.format import image_codec
from srshards.imaging.codec import NPY_HEADER_BYTES, npy_header
from srshards.imaging.pixels import Pixels
from srshards.shards.mapped import MappedShard

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageKind:
    """Images of all samples, of the same name (`hr`, `lr`, ...), size and codec."""

    name: str
    px: int
    codec: str

    @classmethod
    def of(cls, name: str, px: int, shard_codec: str) -> "ImageKind":
        return cls(name, px, image_codec(name, shard_codec))

    @property
    def extension(self) -> str:
        return f"{self.name}.{self.codec}"


class MappedImages:
    """Where the images of one shard are in memory, by kind and position of the sample. Keeps the shard mapped."""

    def __init__(self, shard: MappedShard, kinds: Sequence[ImageKind]) -> None:
        self.shard = shard
        self.memory = (shard.address, shard.num_bytes)
        self._map = np.array([self.memory], np.int64)
        self._kinds = kinds
        self._offsets, self._lengths = np.stack([shard.extents(kind.extension) for kind in kinds], axis=1)
        for kind, offsets, lengths in zip(kinds, self._offsets, self._lengths, strict=True):
            if kind.codec == "npy":
                offsets[lengths != NPY_HEADER_BYTES + 3 * kind.px**2] = native.NO_IMAGE
                offsets[offsets != native.NO_IMAGE] += NPY_HEADER_BYTES
        # Of a raw image, the header is read at the first use. An encoded one is checked whenever it is decoded.
        is_raw = np.array([kind.codec == "npy" for kind in kinds])
        self._is_checked = (self._offsets == native.NO_IMAGE) | ~is_raw[:, None]

    def located(self, kinds: Int64s, positions: Int64s) -> tuple[Int64s, Int64s]:
        """Return the offsets in the shard of these images, and their lengths in bytes.

        The offset of a raw image is that of its pixels; that of a missing or damaged one is native.NO_IMAGE. OSError
        when the shard cannot be read.
        """
        if not self._is_checked[kinds, positions].all():
            for kind in np.unique(kinds).tolist():
                self._check(kind, positions[kinds == kind])
        return self._offsets[kinds, positions], self._lengths[kinds, positions]

    def _check(self, kind: int, positions: Int64s) -> None:
        positions = np.unique(positions[~self._is_checked[kind, positions]])
        headers = np.zeros((len(positions), 2), np.int64)  # in map 0
        headers[:, 1] = self._offsets[kind, positions] - NPY_HEADER_BYTES
        px = self._kinds[kind].px
        with _naming([self], headers):
            is_valid = native.have_bytes(self._map, headers, npy_header(px, px))
        self._offsets[kind, positions[~is_valid]] = native.NO_IMAGE
        self._is_checked[kind, positions] = True


class MappedPatches:
    """Images of N rows of batches, which may be in different shards, to cut patches from."""

    def __init__(self, count: int) -> None:
        self._images: list[MappedImages] = []
        self._patches = np.empty((count, native.PATCH_FIELDS), np.int64)
        self._lengths = np.empty(count, np.int64)

    def add(self, images: MappedImages, rows: Int64s, kinds: Int64s, positions: Int64s) -> None:
        """Set the images of these rows."""
        self._patches[rows, 0] = len(self._images)
        self._patches[rows, 1], self._lengths[rows] = images.located(kinds, positions)
        self._images.append(images)

    def __getitem__(self, rows: slice) -> "MappedPatches":
        """Return a part of the rows."""
        part = MappedPatches(0)
        part._images, part._patches, part._lengths = self._images, self._patches[rows], self._lengths[rows]
        return part

    def write(self, kind: ImageKind, cuts: Int64s, unit: int, to: Pixels) -> Bools:
        """Write the patches of all rows to `to` (N x p x p x 3), and return which rows have an intact image.

        `kind` has codec and size of all images. `cuts` are 3 x N, as `PatchGrid.draw_cuts` returns them, with positions
        in units of `unit` px. Patches of other rows are undefined. OSError when a shard cannot be read.
        """
        patches, lengths = self._patches, self._lengths
        patches[:, 2:] = cuts.T
        patches[:, 2:4] *= unit
        maps = np.array([images.memory for images in self._images], np.int64)
        size = native.ImageSize(kind.px, kind.px)
        with _naming(self._images, patches):
            if kind.codec == "tlc":
                return native.decode_patches(maps, patches, lengths, size, to)
            native.copy_patches(maps, patches, size, to)
        is_intact: Bools = patches[:, 1] != native.NO_IMAGE
        return is_intact


@contextmanager
def _naming(images: Sequence[MappedImages], rows: Int64s) -> Iterator[None]:
    """Name the shard that cannot be read."""
    try:
        yield
    except native.Unreadable as error:
        name = images[rows[error.row, 0]].shard.name
        raise OSError(f"{name} was truncated while it was being read, or its disk failed") from None
