"""Constants and code tables of `tlc`: docs/reference/formats.md. `srshards/native/tlc.c` has the same tables."""

from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

MAGIC = b"TLC1"
HEADER_BYTES = 12
TILE_HEADER_BYTES = 10
MAX_PX = 65535

TILE = 32
BLOCK = 8
BLOCKS = TILE // BLOCK  # along an edge of a tile
STREAMS = 4  # of a tile

WITHOUT_DIFFERENCES = 1  # modes of a tile
WITH_GRADIENT = 2

PAIR_CODES = 5  # codes 1 to 5 are for pairs of residuals, 6 to 15 for single ones
CODE_CODE = 16  # for the codes of the blocks
PAIR_RANGE = 4
MAX_BITS = 12

# Of the codes 0 to 16: the numbers of codewords of 1 to 12 bits.
_NUM_CODEWORDS = (
    (0,) * 12,
    (1, 0, 2, 2, 0, 4, 2, 2, 0, 12, 56, 0),
    (1, 0, 0, 4, 4, 3, 1, 8, 6, 2, 52, 0),
    (0, 1, 3, 1, 4, 4, 8, 8, 2, 6, 44, 0),
    (0, 0, 1, 8, 4, 8, 8, 8, 4, 8, 32, 0),
    (0, 0, 1, 4, 8, 8, 19, 21, 2, 14, 4, 0),
    (1, 0, 2, 2, 2, 0, 4, 2, 4, 4, 5, 38),
    (0, 1, 4, 2, 2, 2, 1, 3, 0, 4, 3, 26),
    (1, 0, 0, 2, 2, 4, 8, 14, 20, 46, 41, 118),
    (0, 0, 5, 3, 3, 2, 4, 3, 3, 4, 3, 34),
    (0, 0, 1, 8, 6, 6, 4, 6, 6, 5, 6, 80),
    (0, 0, 0, 5, 12, 10, 8, 8, 10, 9, 10, 120),
    (0, 0, 0, 0, 14, 19, 16, 15, 13, 13, 14, 152),
    (0, 0, 0, 1, 6, 14, 36, 38, 22, 27, 20, 92),
    (0, 0, 1, 0, 6, 8, 20, 12, 159, 50, 0, 0),
    (0, 0, 0, 0, 0, 0, 0, 256, 0, 0, 0, 0),
    (1, 0, 2, 1, 2, 3, 4, 10, 2, 2, 3, 2),
)
CODES = len(_NUM_CODEWORDS) - 1  # of blocks

_RANGE = range(-PAIR_RANGE, PAIR_RANGE + 1)
_PAIRS = sorted(product(_RANGE, repeat=2), key=lambda pair: (sum(map(abs, pair)), max(map(abs, pair)), pair))
_PAIR_SIDE = len(_RANGE)


def pair_symbols(first: npt.NDArray[np.int8], second: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Return the symbols, 0 to 80, of pairs of residuals between -4 and 4."""
    symbols: npt.NDArray[np.uint8] = ((first + PAIR_RANGE) * _PAIR_SIDE + second + PAIR_RANGE).astype(np.uint8)
    return symbols


def zigzag(residuals: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Return the symbols, 0 to 255, of single residuals: 0, -1, 1, -2, 2, ..., 127, -128."""
    return ((residuals << 1) ^ (residuals >> 7)).view(np.uint8)


def _lengths(code: int) -> npt.NDArray[np.int64]:
    """Return the numbers of bits of the codewords of a code, in the order of the codewords."""
    return np.repeat(np.arange(1, MAX_BITS + 1), _NUM_CODEWORDS[code])


@cache
def decoding_table() -> npt.NDArray[np.int32]:
    """Return, by code and the next 12 bits, the residuals (8 bits each, the second for pairs only) and the length."""
    table = np.zeros((CODES + 1, 1 << MAX_BITS), np.int32)
    for code in range(1, CODES + 1):
        lengths = _lengths(code)
        if code <= PAIR_CODES:
            values = [a & 255 | (b & 255) << 8 for a, b in _PAIRS]
        else:
            values = [(-(i + 1) // 2 if i % 2 else i // 2) & 255 for i in range(len(lengths))]
        table[code] = np.repeat(values | lengths << 16, 1 << (MAX_BITS - lengths))
    return table


@cache
def encoding_tables() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Return the codewords and their lengths in bits by code and symbol; the length 0 for those that do not exist."""
    words, word_lengths = np.zeros((CODES + 1, 256), np.int32), np.zeros((CODES + 1, 256), np.uint8)
    pairs = np.array(_PAIRS, np.int8)
    for code in range(1, CODES + 1):
        lengths = _lengths(code)
        parts = 1 << (MAX_BITS - lengths)  # of the 2 ** 12 sequences of bits, those that begin with the codeword
        symbols = pair_symbols(*pairs.T) if code <= PAIR_CODES else np.arange(len(lengths))
        words[code, symbols] = (np.cumsum(parts) - parts) // parts
        word_lengths[code, symbols] = lengths
    return words, word_lengths
