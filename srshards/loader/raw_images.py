"""Where the raw images of mapped shards are in memory, for the compiled core."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from srshards import native
from srshards.imaging.codec import NPY_HEADER_BYTES, npy_header
from srshards.imaging.pixels import Pixels
from srshards.shards.mapped import MappedShard

Int64s = npt.NDArray[np.int64]


class RawImages:
    """The raw images of one shard: `names` (`hr`, `lr`, ...), each of a size in px. Keeps the shard mapped."""

    def __init__(self, shard: MappedShard, names: Sequence[str], sizes: Sequence[int]) -> None:
        self.shard = shard
        self.memory = (shard.address, shard.num_bytes)
        self._map = np.array([self.memory], np.int64)
        self._headers = [npy_header(size, size) for size in sizes]
        self._offsets = np.stack([shard.pixel_offsets(*image) for image in zip(names, sizes, strict=True)])
        self._is_checked = self._offsets < 0

    def offsets(self, images: Int64s, positions: Int64s) -> Int64s:
        """Return where in the shard the pixels of these images begin: -1 for damaged ones.

        `images` are positions in `names`, `positions` those of the samples in the shard. Reads the header of each image
        at its first use. OSError when the shard cannot be read.
        """
        if not self._is_checked[images, positions].all():
            for image in np.unique(images):
                self._check(int(image), positions[images == image])
        return self._offsets[images, positions]

    def _check(self, image: int, positions: Int64s) -> None:
        positions = np.unique(positions[~self._is_checked[image, positions]])
        headers = np.zeros((len(positions), 2), np.int64)  # in map 0
        headers[:, 1] = self._offsets[image, positions] - NPY_HEADER_BYTES
        with _naming([self], headers):
            is_valid = native.have_bytes(self._map, headers, self._headers[image])
        self._offsets[image, positions[~is_valid]] = -1
        self._is_checked[image, positions] = True


def copy_patches(images: Sequence[RawImages], patches: Int64s, size: int, to: Pixels) -> None:
    """Copy patches of images of size x size px, as `native.copy_patches` does; `images` are its maps.

    OSError when a shard cannot be read.
    """
    maps = np.array([raw.memory for raw in images], np.int64)
    with _naming(images, patches):
        native.copy_patches(maps, patches, native.ImageSize(size, size), to)


@contextmanager
def _naming(images: Sequence[RawImages], rows: Int64s) -> Iterator[None]:
    """Name the shard that cannot be read."""
    try:
        yield
    except native.Unreadable as error:
        name = images[rows[error.row, 0]].shard.name
        raise OSError(f"{name} was truncated while it was being read, or its disk failed") from None
