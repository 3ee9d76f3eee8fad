"""The codec `tlc`: tiled lossless coding of 8-bit RGB images, of which any part can be decoded by itself.

Images consist of tiles of 32 x 32 px that are coded independently: docs/reference/formats.md. The functions use the
compiled core where it is installed (`srshards.native`), and NumPy otherwise, with the same results, except for crops of
damaged tiles: the pixels may differ, and whether the damage is found.
"""

import struct

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from srshards import native
from srshards.imaging.pixels import Pixels, require_rgb
from srshards.imaging.tlc_decoder import DAMAGED_TILE, decode_tiles
from srshards.imaging.tlc_encoder import encode_tiles
from srshards.imaging.tlc_tables import HEADER_BYTES, MAGIC, MAX_PX, TILE, TILE_HEADER_BYTES

_HEADER = struct.Struct("<4sHHI")
_CRC_OFFSET = 8
_TILES_AT_ONCE = 1024  # with NumPy, which takes about 200 KiB for each


def encode(image: Pixels) -> bytes:
    """Encode H x W x 3 uint8. ValueError for another type, or for a size outside of 1 to 65535 px."""
    require_rgb(image)
    height, width = image.shape[:2]
    if not (1 <= height <= MAX_PX and 1 <= width <= MAX_PX):
        raise ValueError(f"expected 1 to {MAX_PX} px, got {height} x {width} px")
    if native.is_available():
        return _with_crc(native.encode_tlc(np.ascontiguousarray(image)).data)
    return _with_crc(_encode_with_numpy(image))


def decode(content: bytes | memoryview) -> Pixels:
    """Decode an image in `tlc` to H x W x 3 uint8 RGB. ValueError when it is damaged.

    For members of shards that another program reads: `Sample`, `PatchLoader` and others decode them themselves.

    Examples:
        >>> from srshards.imaging.tlc import encode
        >>> content = encode(shards[0].hr)  # e.g. the bytes of `sample["hr.tlc"]` in webdataset or datasets
        >>> decode_tlc(content).shape
        (64, 64, 3)
    """
    height, width = read_size(content)
    sizes = _tile_sizes(content)
    end = HEADER_BYTES + sizes.nbytes + int(sizes.sum(dtype=np.int64))
    if len(content) != end:
        raise ValueError(f"expected {end} bytes, found {len(content)}")
    if _crc(content) != _HEADER.unpack_from(content)[3]:
        raise ValueError("the CRC-32 does not match")
    if sizes.min() < TILE_HEADER_BYTES:  # before memory is allocated for the image
        raise ValueError(DAMAGED_TILE)
    image = np.empty((height, width, 3), np.uint8)
    decode_crop(content, 0, 0, image)
    return image


def decode_crop(content: bytes | memoryview, top: int, left: int, out: Pixels) -> None:
    """Decode the part of an image that begins at row `top` and column `left`, into `out`, h x w x 3 uint8 in C order.

    Only the tiles that the part touches are read. Damage elsewhere is not found, and of the damage in these tiles only
    what makes them impossible: the CRC-32 is for the complete content. ValueError for the damage that is found, and for
    a part outside of the image. The compiled core releases the GIL.
    """
    require_rgb(out)
    height, width = read_size(content)
    if not (0 <= top <= height - out.shape[0] and 0 <= left <= width - out.shape[1] and out.size):
        box = f"{out.shape[0]} x {out.shape[1]} px at ({top}, {left})"
        raise ValueError(f"{box} are outside of the image, which has {height} x {width} px")
    if not out.flags.c_contiguous:
        raise ValueError("expected an array in C order")
    if not native.is_available():
        _decode_with_numpy(content, top, left, out)
        return
    try:
        is_intact = native.decode_tlc(np.frombuffer(content, np.uint8), top, left, out)
    except native.Unreadable as error:
        raise ValueError("its memory cannot be read") from error
    if not is_intact:
        raise ValueError(DAMAGED_TILE)


def read_size(content: bytes | memoryview) -> tuple[int, int]:
    """Return height and width of an image in px. ValueError when the content does not begin like one."""
    if len(content) < HEADER_BYTES:
        raise ValueError("the header is truncated")
    magic, height, width, _ = _HEADER.unpack_from(content)
    if magic != MAGIC or not height or not width:
        raise ValueError(f"expected a header of {MAGIC.decode()}, found {bytes(content[:HEADER_BYTES])!r}")
    if len(content) < HEADER_BYTES + 2 * _num_tiles(height) * _num_tiles(width):
        raise ValueError("the table of tiles is truncated")
    return height, width


def _num_tiles(px: int) -> int:
    return -(-px // TILE)


def _tile_sizes(content: bytes | memoryview) -> npt.NDArray[np.uint16]:
    height, width = read_size(content)
    rows, columns = _num_tiles(height), _num_tiles(width)
    return np.frombuffer(content, "<u2", rows * columns, HEADER_BYTES).reshape(rows, columns)


def _crc(content: bytes | bytearray | memoryview) -> int:
    """Return the CRC-32 of all bytes but its own four."""
    data = memoryview(content)
    crc: int = isal_zlib.crc32(data[HEADER_BYTES:], isal_zlib.crc32(data[:_CRC_OFFSET]))
    return crc


def _with_crc(content: bytearray | memoryview) -> bytes:
    struct.pack_into("<I", content, _CRC_OFFSET, _crc(content))
    return bytes(content)


def _encode_with_numpy(image: Pixels) -> bytearray:
    height, width = image.shape[:2]
    rows, columns = _num_tiles(height), _num_tiles(width)
    padded = np.pad(image, ((0, rows * TILE - height), (0, columns * TILE - width), (0, 0)))
    tiles = padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
    sizes = _sizes(height, width).reshape(-1, 2)
    parts = []
    for i in range(0, len(tiles), _TILES_AT_ONCE):
        parts += encode_tiles(tiles[i : i + _TILES_AT_ONCE], sizes[i : i + _TILES_AT_ONCE])
    table = np.array([len(part) for part in parts], "<u2")
    return bytearray(b"".join([_HEADER.pack(MAGIC, height, width, 0), table.tobytes(), *parts]))


def _decode_with_numpy(content: bytes | memoryview, top: int, left: int, out: Pixels) -> None:
    height, width = read_size(content)
    bottom, right = top + out.shape[0], left + out.shape[1]
    columns = slice(left // TILE, _num_tiles(right))
    data, sizes = np.frombuffer(content, np.uint8), _sizes(height, width)
    tile_bytes = _tile_sizes(content).astype(np.int64)
    ends = HEADER_BYTES + 2 * tile_bytes.size + np.cumsum(tile_bytes).reshape(tile_bytes.shape)
    at_once = max(1, _TILES_AT_ONCE // (columns.stop - columns.start))
    for first in range(top // TILE, _num_tiles(bottom), at_once):
        last = min(first + at_once, _num_tiles(bottom))  # exclusive
        stops = ends[first:last, columns]
        if stops[-1, -1] > len(data):
            raise ValueError(DAMAGED_TILE)
        start, stop = int((stops - tile_bytes[first:last, columns])[0, 0]), int(stops[-1, -1])
        tiles = decode_tiles(
            data[start:stop],
            (stops - tile_bytes[first:last, columns]).ravel() - start,
            stops.ravel() - start,
            sizes[first:last, columns].reshape(-1, 2),
            min(TILE, bottom - (last - 1) * TILE) if last - first == 1 else TILE,
        )
        pixels = tiles.reshape(*stops.shape, TILE, TILE, 3).swapaxes(1, 2).reshape(len(stops) * TILE, -1, 3)
        begin, end = max(top, first * TILE), min(bottom, last * TILE)
        out[begin - top : end - top] = pixels[begin - first * TILE : end - first * TILE, left % TILE :][
            :, : right - left
        ]


def _sizes(height: int, width: int) -> npt.NDArray[np.int64]:
    """Return the heights and widths of all tiles, rows x columns x 2."""
    heights, widths = (np.minimum(TILE, px - np.arange(0, px, TILE)) for px in (height, width))
    return np.stack(np.meshgrid(heights, widths, indexing="ij"), -1)
