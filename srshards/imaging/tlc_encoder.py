"""Encoding as `tlc` with NumPy, all tiles at the same time: where the compiled core is missing."""

import numpy as np
import numpy.typing as npt

from srshards.imaging.pixels import Pixels
from srshards.imaging.tlc_decoder import predicted_codes
from srshards.imaging.tlc_tables import (
    BLOCK,
    BLOCKS,
    CODE_CODE,
    CODES,
    PAIR_CODES,
    PAIR_RANGE,
    STREAMS,
    TILE,
    TILE_HEADER_BYTES,
    WITH_GRADIENT,
    WITHOUT_DIFFERENCES,
    encoding_tables,
    pair_symbols,
    zigzag,
)

_NO_CODE = 800  # instead of a number of bits
_Integers = npt.NDArray[np.int64]
_Residuals = npt.NDArray[np.int8]


def encode_tiles(tiles: Pixels, sizes: _Integers) -> list[bytes]:
    """Encode n x 32 x 32 x 3 pixels, of which n x 2 px are inside of the tiles."""
    heights, widths = sizes.T
    inside_y, inside_x = (np.arange(TILE) < size[:, None] for size in (heights, widths))
    modes, planes, residuals = _predict(tiles, inside_y[:, None, :, None] & inside_x[:, None, None, :])
    codes = _choose_codes(residuals)
    words, lengths = _symbols(residuals, codes, inside_y, inside_x)
    return _write(modes, planes[:, :, 0, 0], words, lengths)


def _predict(tiles: Pixels, inside: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.uint8], Pixels, _Residuals]:
    """Choose the modes. Return them, the planes (n x 3 x 32 x 32) and their residuals, 0 outside of the tiles."""
    modes = np.zeros(len(tiles), np.uint8)
    planes, residuals = _with_modes(tiles, inside, modes)
    smallest = _sums(residuals)
    for trial in (WITH_GRADIENT, WITHOUT_DIFFERENCES):
        # First only the gradient, then no differences, with the better predictor.
        trials = np.full_like(modes, trial) if trial == WITH_GRADIENT else modes | np.uint8(trial)
        other_planes, other_residuals = _with_modes(tiles, inside, trials)
        sums = _sums(other_residuals)
        is_better = sums < smallest
        modes[is_better], smallest[is_better] = trials[is_better], sums[is_better]
        planes[is_better], residuals[is_better] = other_planes[is_better], other_residuals[is_better]
    return modes, planes, residuals


def _with_modes(
    tiles: Pixels, inside: npt.NDArray[np.bool_], modes: npt.NDArray[np.uint8]
) -> tuple[Pixels, _Residuals]:
    """Return the planes of the tiles with these modes, and their residuals."""
    planes = tiles.transpose(0, 3, 1, 2).copy()
    with_differences = (modes & WITHOUT_DIFFERENCES) == 0
    planes[with_differences, ::2] -= planes[with_differences, 1:2] - np.uint8(128)
    bordered = np.empty((len(tiles), 3, TILE + 1, TILE + 1), np.uint8)
    bordered[:] = planes[:, :, :1, :1]
    bordered[:, :, 1:, 1:] = planes
    left, above, corner = bordered[:, :, 1:, :-1], bordered[:, :, :-1, 1:], bordered[:, :, :-1, :-1]
    limited = np.clip(corner, np.minimum(left, above), np.maximum(left, above))
    corner = np.where((modes & WITH_GRADIENT)[:, None, None, None] > 0, corner, limited)
    return planes, np.where(inside, planes - left - above + corner, 0).astype(np.uint8).view(np.int8)


def _sums(residuals: _Residuals) -> _Integers:
    sums: _Integers = np.abs(residuals.astype(np.int16)).sum((1, 2, 3), dtype=np.int64)
    return sums


def _choose_codes(residuals: _Residuals) -> _Integers:
    """Return the codes of the blocks, n x 3 x 4 x 4: those with the fewest bits, the first of several."""
    shape = (len(residuals), 3, BLOCKS, BLOCK, BLOCKS, BLOCK)
    blocks = residuals.reshape(shape).transpose(0, 1, 2, 4, 3, 5).reshape(-1, BLOCK * BLOCK)
    lengths = encoding_tables()[1][:CODES].astype(np.int64).T  # by symbol and code
    lengths[lengths == 0] = _NO_CODE
    bits = np.zeros((len(blocks), CODES), np.int64)
    for symbols in zigzag(blocks).T:
        bits += lengths[symbols]
    are_small = (np.abs(blocks.astype(np.int16)) <= PAIR_RANGE).all(1)
    small = blocks[are_small]
    bits[:, : PAIR_CODES + 1] = _NO_CODE * BLOCK * BLOCK
    of_pairs = np.zeros((len(small), PAIR_CODES), np.int64)
    for symbols in pair_symbols(small[:, ::2], small[:, 1::2]).T:
        of_pairs += lengths[symbols, 1 : PAIR_CODES + 1]
    bits[are_small, 1 : PAIR_CODES + 1] = of_pairs
    codes = np.where(blocks.any(1), bits[:, 1:].argmin(1) + 1, 0)
    return codes.reshape(-1, 3, BLOCKS, BLOCKS)


def _symbols(
    residuals: _Residuals, codes: _Integers, inside_y: npt.NDArray[np.bool_], inside_x: npt.NDArray[np.bool_]
) -> tuple[_Integers, _Integers]:
    """Return the codewords and their lengths in bits, n x 4 streams x symbols; the length 0 for symbols left out."""
    num = len(residuals)
    # Axes: tile, plane, row of blocks, half of it, stream, column of blocks, pixel -> tile, stream, row, column, plane,
    # half, pixel: the order in the streams.
    parts = residuals.reshape(num, 3, BLOCKS, BLOCK // STREAMS, STREAMS, BLOCKS, BLOCK).transpose(0, 4, 2, 5, 1, 3, 6)
    code = codes.transpose(0, 2, 3, 1)[:, None, :, :, :, None, None]
    pairs = pair_symbols(parts[..., ::2], parts[..., 1::2])
    is_pair = code <= PAIR_CODES
    symbols = np.where(is_pair, np.repeat(pairs, 2, -1), zigzag(parts))
    inside = (
        inside_y.reshape(num, BLOCKS, -1, STREAMS).transpose(0, 3, 1, 2)[:, :, :, None, None, :, None]
        & inside_x.reshape(num, 1, 1, BLOCKS, 1, 1, BLOCK)
        & (~is_pair | (np.arange(BLOCK) % 2 == 0))
    )
    all_words, all_lengths = encoding_tables()
    words, lengths = all_words[code, symbols], np.where(inside, all_lengths[code, symbols], 0)
    changes = np.empty_like(codes)
    for plane, row, column in np.ndindex(3, BLOCKS, BLOCKS):
        changes[:, plane, row, column] = codes[:, plane, row, column] - predicted_codes(codes, plane, row, column)
    # Stream i has the codes of the blocks of column i: tile, stream, row, plane.
    change = zigzag(changes.astype(np.int8)).transpose(0, 3, 2, 1)
    has_codes = inside_x[:, ::BLOCK, None, None] & inside_y[:, None, ::BLOCK, None]
    code_words = all_words[CODE_CODE, change]
    code_lengths = np.where(has_codes, all_lengths[CODE_CODE, change], 0)
    shape = (num, STREAMS, BLOCKS, -1)
    return (
        np.concatenate([code_words, words.reshape(shape)], -1).reshape(num, STREAMS, -1).astype(np.int64),
        np.concatenate([code_lengths, lengths.reshape(shape)], -1).reshape(num, STREAMS, -1).astype(np.int64),
    )


def _write(modes: npt.NDArray[np.uint8], first_pixels: Pixels, words: _Integers, lengths: _Integers) -> list[bytes]:
    """Return the content of each tile: its header and its four streams."""
    stream_sizes = (lengths.sum(2) + 7) // 8
    tile_sizes = TILE_HEADER_BYTES + stream_sizes.sum(1)
    tile_starts = np.cumsum(tile_sizes) - tile_sizes
    stream_starts = (tile_starts + TILE_HEADER_BYTES)[:, None] + np.cumsum(stream_sizes, 1) - stream_sizes
    bits = 8 * stream_starts[:, :, None] + np.cumsum(lengths, 2) - lengths
    is_written = lengths > 0
    words, lengths, bits = words[is_written], lengths[is_written], bits[is_written]
    shifted, first_bytes = words << (24 - lengths - bits % 8), bits // 8
    content = np.zeros(int(tile_sizes.sum()) + 2, np.uint8)
    for i in range(3):  # a codeword extends over at most three bytes
        parts = np.bincount(first_bytes + i, shifted >> (16 - 8 * i) & 255, len(content))
        content += parts.astype(np.uint8)
    content[tile_starts] = modes
    for i in range(3):
        content[tile_starts + 1 + i] = first_pixels[:, i]
        content[tile_starts + 4 + 2 * i] = stream_sizes[:, i] & 255
        content[tile_starts + 5 + 2 * i] = stream_sizes[:, i] >> 8
    return [bytes(content[start : start + size]) for start, size in zip(tile_starts, tile_sizes, strict=True)]
