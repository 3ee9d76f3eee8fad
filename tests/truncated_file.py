"""A mapped file that has become shorter, for tests of the compiled core, and for small programs that they run."""

import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from srshards import native

PAGE = mmap.PAGESIZE
Bytes = npt.NDArray[np.uint8]


def random_bytes(count: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, count, np.uint8)


def map_of(*blocks: Bytes) -> npt.NDArray[np.int64]:
    """Return the maps of these arrays, as arguments of the core."""
    return np.array([(block.ctypes.data, block.nbytes) for block in blocks], np.int64)


class TruncatedFile:
    """A mapped file of four pages, of which `pages` are left. Each page begins with an image of 16 x 16 px."""

    def __init__(self, folder: Path, pages: int) -> None:
        path = folder / "file"
        path.write_bytes(random_bytes(4 * PAGE).tobytes())
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes: Bytes = np.frombuffer(self._map, np.uint8)
        self.maps = map_of(self.bytes)
        os.truncate(path, pages * PAGE)

    def copy(self, pages: range) -> Bytes:
        """Return the images of these pages."""
        patches = np.zeros((len(pages), native.PATCH_FIELDS), np.int64)
        patches[:, 1] = PAGE * np.array(pages)
        to = np.empty((len(pages), 16, 16, 3), np.uint8)
        native.copy_patches(self.maps, patches, native.ImageSize(16, 16), to)
        return to
