"""Access to the compiled core: copying patches out of mapped shards, and the codec `tlc`, without the GIL.

The core is optional. Where it was not built, or SRSHARDS_NATIVE=0 is set, `is_available` is False, and NumPy and OpenCV
do the same in worker processes.
"""

import os
from types import ModuleType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

MAP_FIELDS, PATCH_FIELDS = 2, 5  # of the structs in patches.h
NO_IMAGE = -1
_OK, _INVALID_SIZE, _OUT_OF_BOUNDS, _UNREADABLE = range(4)  # srs_status
_TLC_UNREADABLE = -1


class Unreadable(Exception):
    """A page of a mapped file could not be read: the file became shorter, or its disk failed. `row` was being read."""

    def __init__(self, row: int) -> None:
        super().__init__(f"the memory of row {row} cannot be read")
        self.row = row


class ImageSize(NamedTuple):
    """Height and width of an image in px."""

    height: int
    width: int


def is_available() -> bool:
    """Return whether the core was built and is in use."""
    return _core is not None


def copy_patches(maps: Int64s, patches: Int64s, image: ImageSize, to: Bytes) -> None:
    """Copy N patches of p x p px out of raw RGB images, all of the same size, to `to` (N x p x p x 3, C-contiguous).

    `maps` (M x 2) has address and size in bytes of memory that stays valid during the call. `patches` (N x 5) has, for
    each patch, the number of its map, the offset of its image in bytes, top and left in px, and the symmetry (0-7, as
    in `sampling.patches`); patches with the offset NO_IMAGE are left out. All of them are checked before any is copied:
    ValueError when one is out of bounds. Unreadable when a page cannot be read; `to` is then undefined.
    """
    assert _core is not None
    count, patch = _check_target(patches, to)
    arguments = (*_array(maps, MAP_FIELDS), _address(patches, PATCH_FIELDS), count, *image, patch, to.ctypes.data)
    _check(_core.copy_patches(*arguments, to.nbytes), patches, image, patch)


def decode_patches(maps: Int64s, patches: Int64s, lengths: Int64s, image: ImageSize, to: Bytes) -> Bools:
    """Decode N patches of images in `tlc`, as `copy_patches` copies those of raw ones; `lengths` are the images' bytes.

    Return which patches have an image without damage in the tiles that they touch. The others are undefined.
    """
    assert _core is not None and lengths.dtype == np.int64 and lengths.shape == (len(patches),)
    count, patch = _check_target(patches, to)
    is_intact, scratch = np.zeros(count, np.uint8), np.empty(3 * patch**2, np.uint8)
    arguments = (*_array(maps, MAP_FIELDS), _address(patches, PATCH_FIELDS), lengths.ctypes.data, count, *image, patch)
    status = _core.decode_patches(*arguments, to.ctypes.data, to.nbytes, scratch.ctypes.data, is_intact.ctypes.data)
    _check(status, patches, image, patch)
    return is_intact.view(np.bool_)


def have_bytes(maps: Int64s, positions: Int64s, expected: bytes) -> Bools:
    """Return for each of N positions (N x 2: number of a map, offset in bytes) whether `expected` is there.

    `maps` is that of `copy_patches`. What is out of bounds is not. Unreadable when a page cannot be read.
    """
    assert _core is not None
    equal = np.zeros(len(positions), np.uint8)
    arguments = (*_array(maps, MAP_FIELDS), _address(positions, 2), len(positions), expected, equal.ctypes.data)
    status, row = _core.compare(*arguments)
    if status == _UNREADABLE:
        raise Unreadable(row)
    return equal.view(np.bool_)


def encode_tlc(image: Bytes) -> Bytes:
    """Encode H x W x 3 uint8, C-contiguous, as `tlc`. The four bytes of the CRC-32 are 0."""
    assert _core is not None and image.dtype == np.uint8 and image.flags.c_contiguous
    height, width, _ = image.shape
    to = np.empty(_core.max_tlc_size(height, width), np.uint8)
    return to[: _core.encode_tlc(image.ctypes.data, height, width, to.ctypes.data, to.nbytes)]


def decode_tlc(content: Bytes, top: int, left: int, to: Bytes) -> bool:
    """Decode the part of an image in `tlc` that begins at `top` and `left`, in px, to `to` (h x w x 3, C-contiguous).

    Return whether the part is inside of the image, and its tiles show no damage. Unreadable when a page of the content
    cannot be read; `to` is then undefined.
    """
    assert _core is not None and to.dtype == content.dtype == np.uint8
    assert to.flags.c_contiguous and content.flags.c_contiguous
    status = _core.decode_tlc(content.ctypes.data, content.nbytes, top, left, *to.shape[:2], to.ctypes.data)
    if status == _TLC_UNREADABLE:
        raise Unreadable(0)
    return bool(status == _OK)


def _check_target(patches: Int64s, to: Bytes) -> tuple[int, int]:
    """Return the number of patches and their edge length."""
    count, patch = len(patches), to.shape[1]
    assert to.dtype == np.uint8 and to.shape == (count, patch, patch, 3) and to.flags.c_contiguous
    return count, patch


def _check(result: tuple[int, int], patches: Int64s, image: ImageSize, patch: int) -> None:
    status, row = result
    if status == _INVALID_SIZE:
        raise ValueError(f"no patches of {patch} px in images of {image.width} x {image.height} px")
    if status == _OUT_OF_BOUNDS:
        raise ValueError(f"patch {row} is out of bounds: {patches[row].tolist()}")
    if status == _UNREADABLE:
        raise Unreadable(row)


def _array(rows: Int64s, fields: int) -> tuple[int, int]:
    return _address(rows, fields), len(rows)


def _address(rows: Int64s, fields: int) -> int:
    assert rows.dtype == np.int64 and rows.shape[1] == fields and rows.flags.c_contiguous
    return rows.ctypes.data


def _load() -> ModuleType | None:
    if os.environ.get("SRSHARDS_NATIVE") == "0":
        return None
    try:
        from srshards.native import _core
    except ImportError:  # not built, or for another platform
        return None
    return _core


_core = _load()
