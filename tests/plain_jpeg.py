"""JPEG compression, written plainly: libjpeg's integer arithmetic around the DCT, which Pillow computes per plane."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.int64]

# Pixels that share a colour (height x width), and what is added to their sums before the division, by column.
_BLOCKS = {"4:2:0": (2, 2), "4:2:2": (1, 2), "4:4:4": (1, 1)}
_BIAS = {"4:2:0": (1, 2), "4:2:2": (0, 1), "4:4:4": (0, 0)}
# Annex K of the standard.
_LUMA = [
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29),
    *(51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121),
    *(120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
]
_CHROMA = [*(17, 18, 24, 47, *[99] * 4, 18, 21, 26, 66, *[99] * 4, 24, 26, 56, *[99] * 5, 47, 66), *[99] * 38]


def compressed(rgb: NDArray[np.uint8], quality: int, subsampling: str, upsampling: str) -> Plane:
    """Return H x W x 3, 0-255, after compression by the accurate DCT. H and W must be multiples of 16."""
    red, green, blue = np.moveaxis(rgb.astype(np.int64), 2, 0)
    luma = _coded((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16, _LUMA, quality)
    offset = (128 << 16) + 32767
    colours = (-11059 * red - 21709 * green + 32768 * blue, 32768 * red - 27439 * green - 5329 * blue)
    decoded = []
    for colour in colours:
        subsampled = _coded(_subsampled((colour + offset) >> 16, subsampling), _CHROMA, quality)
        decoded.append(_enlarged(subsampled, *_BLOCKS[subsampling], upsampling) - 128)
    blueness, redness = decoded
    channels = (
        luma + ((91881 * redness + 32768) >> 16),
        luma + ((-22554 * blueness - 46802 * redness + 32768) >> 16),
        luma + ((116130 * blueness + 32768) >> 16),
    )
    return np.clip(np.stack(channels, axis=2), 0, 255)


def _coded(plane: Plane, table: list[int], quality: int) -> Plane:
    percentage = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = [min(max((step * percentage + 50) // 100, 1), 255) for step in table]
    file = io.BytesIO()
    Image.fromarray(plane.astype(np.uint8)).save(file, "JPEG", qtables=[scaled])
    return np.asarray(Image.open(file)).astype(np.int64)


def _subsampled(plane: Plane, subsampling: str) -> Plane:
    rows, columns = _BLOCKS[subsampling]
    height, width = plane.shape
    sums = plane.reshape(height // rows, rows, width // columns, columns).sum(axis=(1, 3))
    return (sums + np.resize(_BIAS[subsampling], sums.shape[1])) // (rows * columns)


def _enlarged(plane: Plane, rows: int, columns: int, upsampling: str) -> Plane:
    if upsampling == "plain":
        return plane.repeat(rows, axis=0).repeat(columns, axis=1)
    if columns == 1:
        return plane
    # Three quarters of the nearest pixel and one of the next, in each direction; ties are rounded in turn.
    if rows == 1:
        return (_interpolated(plane) + np.resize((1, 2), 2 * plane.shape[1])) >> 2
    return (_interpolated(_interpolated(plane.T).T) + np.resize((8, 7), 2 * plane.shape[1])) >> 4


def _interpolated(plane: Plane) -> Plane:
    """Return four times the linear interpolation of twice as many columns."""
    padded = np.pad(plane, ((0, 0), (1, 1)), "edge")
    both = np.stack((3 * plane + padded[:, :-2], 3 * plane + padded[:, 2:]), axis=2)
    return both.reshape(len(plane), -1)
