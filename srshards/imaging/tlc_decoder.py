"""Decoding of `tlc` with NumPy, all tiles at the same time: where the compiled core is missing."""

import numpy as np
import numpy.typing as npt

from srshards.imaging.pixels import Pixels
from srshards.imaging.tlc_tables import (
    BLOCK,
    BLOCKS,
    CODE_CODE,
    CODES,
    MAX_BITS,
    PAIR_CODES,
    STREAMS,
    TILE,
    TILE_HEADER_BYTES,
    WITH_GRADIENT,
    WITHOUT_DIFFERENCES,
    decoding_table,
)

DAMAGED_TILE = "a tile is damaged"

_MAX_STREAM_BYTES = 2048  # the most that the residuals of a stream and the codes of the blocks can take
_Integers = npt.NDArray[np.int64]


class _Streams:
    """The streams of n tiles. Beyond the end of the content they continue with zeros."""

    def __init__(self, content: npt.NDArray[np.uint8], starts: _Integers):
        padded = np.concatenate([content, np.zeros(_MAX_STREAM_BYTES, np.uint8)]).astype(np.uint32)
        self._words = padded[:-3] << 24 | padded[1:-2] << 16 | padded[2:-1] << 8 | padded[3:]  # at each byte
        self._table = decoding_table()
        self.bits = starts * 8  # n x 4: the position of each stream

    def take(self, codes: int | _Integers, bits: _Integers) -> npt.NDArray[np.int32]:
        """Return the entries of the decoding table for the next symbols at positions in bits."""
        shifts = (32 - MAX_BITS - (bits & 7)).astype(np.uint32)
        entries: npt.NDArray[np.int32] = self._table[codes, (self._words[bits >> 3] >> shifts) & ((1 << MAX_BITS) - 1)]
        return entries


class _Tiles:
    """n tiles, with `heights` and `widths` in px, of which the first `rows` are decoded."""

    def __init__(self, content: npt.NDArray[np.uint8], starts: _Integers, ends: _Integers, sizes: _Integers, rows: int):
        self.heights, self.widths = sizes.T
        self.rows = np.minimum(self.heights, rows)
        if (ends - starts < TILE_HEADER_BYTES).any():
            raise ValueError(DAMAGED_TILE)
        headers = content[starts[:, None] + np.arange(TILE_HEADER_BYTES)]
        self.modes, self.border = headers[:, 0], headers[:, 1:4]
        stream_sizes = headers[:, 4::2] + headers[:, 5::2].astype(np.int64) * 256
        stream_starts = (starts + TILE_HEADER_BYTES)[:, None] + np.cumsum(np.pad(stream_sizes, ((0, 0), (1, 0))), 1)
        self.stream_ends = np.concatenate([stream_starts[:, 1:], ends[:, None]], 1)
        if (self.modes > (WITHOUT_DIFFERENCES | WITH_GRADIENT)).any() or (stream_starts > ends[:, None]).any():
            raise ValueError(DAMAGED_TILE)
        self.streams = _Streams(content, stream_starts)
        self.codes = np.zeros((len(starts), 3, BLOCKS, BLOCKS), np.int64)
        self.residuals = np.zeros((len(starts), 3, TILE, TILE), np.uint8)

    def pixels(self) -> Pixels:
        """Return the pixels, n x 32 x 32 x 3; what is outside of the tiles, or beyond `rows`, is undefined."""
        for row in range(BLOCKS):
            tiles = np.flatnonzero(self.rows > row * BLOCK)
            self._read_codes(row, tiles)
            for column in range(BLOCKS):
                for plane in range(3):
                    self._read_blocks(row, column, plane, tiles[self.widths[tiles] > column * BLOCK])
        self._check_ends()
        planes = self._planes()
        with_differences = (self.modes & WITHOUT_DIFFERENCES) == 0
        planes[with_differences, :, :, ::2] += planes[with_differences, :, :, 1:2] - np.uint8(128)
        return planes

    def _read_codes(self, row: int, tiles: _Integers) -> None:
        changes = np.zeros_like(self.codes[:, :, row])
        for column in range(BLOCKS):
            some = tiles[self.widths[tiles] > column * BLOCK]
            for plane in range(3):
                entries = self.streams.take(CODE_CODE, self.streams.bits[some, column])
                self.streams.bits[some, column] += entries >> 16
                changes[some, plane, column] = entries.astype(np.int8)
        for plane in range(3):
            for column in range(BLOCKS):
                some = tiles[self.widths[tiles] > column * BLOCK]
                codes = predicted_codes(self.codes[some], plane, row, column) + changes[some, plane, column]
                if ((codes < 0) | (codes >= CODES)).any():
                    raise ValueError(DAMAGED_TILE)
                self.codes[some, plane, row, column] = codes

    def _read_blocks(self, row: int, column: int, plane: int, tiles: _Integers) -> None:
        codes = self.codes[tiles, plane, row, column]
        for is_pair in (True, False):
            selected = (codes > 0) & ((codes <= PAIR_CODES) == is_pair)
            some, code = tiles[selected], codes[selected][:, None]
            if not len(some):
                continue
            columns = np.minimum(self.widths[some] - column * BLOCK, BLOCK)[:, None]
            for top in range(row * BLOCK, (row + 1) * BLOCK, STREAMS):
                rows_inside = np.arange(top, top + STREAMS) < self.heights[some][:, None]
                bits = self.streams.bits[some]
                to = self.residuals[some, plane, top : top + STREAMS, column * BLOCK : (column + 1) * BLOCK]
                for x in range(0, BLOCK, 1 + is_pair):
                    entries = self.streams.take(code, bits) * (rows_inside & (x < columns))
                    bits += entries >> 16
                    to[:, :, x] = entries
                    if is_pair:
                        to[:, :, x + 1] = entries >> 8
                self.streams.bits[some] = bits
                self.residuals[some, plane, top : top + STREAMS, column * BLOCK : (column + 1) * BLOCK] = to

    def _check_ends(self) -> None:
        are_complete = self.rows == self.heights
        if ((self.streams.bits + 7) // 8 != self.stream_ends)[are_complete].any():
            raise ValueError(DAMAGED_TILE)

    def _planes(self) -> npt.NDArray[np.uint8]:
        """Undo the prediction, pixel by pixel, of all tiles and planes."""
        residuals = self.residuals.transpose(2, 3, 0, 1).copy()
        planes = np.empty((TILE + 1, TILE + 1, len(self.modes), 3), np.uint8)
        planes[:] = self.border
        limits = np.where(self.modes & WITH_GRADIENT, 255, 0).astype(np.uint8)[:, None]  # 255: the corner has none
        for y in range(self.rows.max()):
            for x in range(self.widths.max()):
                left, above, corner = planes[y + 1, x], planes[y, x + 1], planes[y, x]
                low, high = np.minimum(left, above) & ~limits, np.maximum(left, above) | limits
                corner = np.minimum(np.maximum(corner, low), high)
                np.subtract(residuals[y, x] + left + above, corner, out=planes[y + 1, x + 1])
        inner: npt.NDArray[np.uint8] = planes[1:, 1:].transpose(2, 0, 1, 3).copy()
        return inner


def predicted_codes(codes: _Integers, plane: int, row: int, column: int) -> _Integers | int:
    """Predict the codes of a block of n tiles from those of its neighbours: `codes` is n x 3 x 4 x 4."""
    if row and column:
        return (codes[:, plane, row - 1, column] + codes[:, plane, row, column - 1] + 1) >> 1
    if row:
        return codes[:, plane, row - 1, column]
    if column:
        return codes[:, plane, row, column - 1]
    return codes[:, plane - 1, 0, 0] if plane else 0


def decode_tiles(
    content: npt.NDArray[np.uint8], starts: _Integers, ends: _Integers, sizes: _Integers, rows: int
) -> Pixels:
    """Decode the first rows of n tiles at content[start:end] of n x 2 px to n x 32 x 32 x 3.

    ValueError when a tile is damaged.
    """
    return _Tiles(content, starts, ends, sizes, rows).pixels()
