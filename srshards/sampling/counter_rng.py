"""Randomness as a pure function: the same words give the same number, in any process, on any machine, for ever.

The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) over arrays,
instead of NumPy's generators: those cost 20 us per sample to seed, and their streams may change between versions.
"""

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Words = int | npt.NDArray[np.int64] | U64

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def draw(*words: Words) -> U64:
    """64 random bits for each row of words (integers >= 0, or arrays that fit together). At least one element."""
    state: U64 = np.zeros(1, np.uint64)
    for word in words:
        state = _finalise((state + _STEP) ^ np.asarray(word).astype(np.uint64))
    return state


def _finalise(z: U64) -> U64:
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    mixed: U64 = z ^ (z >> np.uint64(31))
    return mixed


def below(bits: U64, limit: int) -> npt.NDArray[np.int64]:
    """Integers in [0, limit), 1 <= limit <= 2^32, from 64 random bits each; uneven by at most limit / 2^32."""
    numbers: U64 = ((bits >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)
    return numbers.astype(np.int64)


def shuffled(count: int, *words: int) -> npt.NDArray[np.int64]:
    """A permutation of 0 .. count-1 that the words decide."""
    return np.argsort(draw(*words, np.arange(count)), kind="stable").astype(np.int64)
