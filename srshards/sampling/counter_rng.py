"""Counter-based random numbers: a pure function of the keys, the same in any process and on any machine.

It applies the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)
to arrays. NumPy's generators take 20 us per sample to seed, and their streams may change between versions.
"""

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Key = int | npt.NDArray[np.int64] | U64

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def draw(*keys: Key) -> U64:
    """Return 64 random bits for each element of the broadcast keys (integers >= 0, or arrays of them)."""
    state: U64 = np.zeros(1, np.uint64)
    for key in keys:
        state = _finalise((state + _STEP) ^ np.asarray(key).astype(np.uint64))
    return state


def _finalise(z: U64) -> U64:
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    mixed: U64 = z ^ (z >> np.uint64(31))
    return mixed


def below(bits: U64, limit: int) -> npt.NDArray[np.int64]:
    """Map 64 random bits each to integers in [0, limit), 1 <= limit <= 2^32; the bias is at most limit / 2^32."""
    numbers: U64 = ((bits >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)
    return numbers.astype(np.int64)


def shuffled(count: int, *keys: int) -> npt.NDArray[np.int64]:
    """Return the permutation of 0 .. count-1 determined by the keys."""
    return np.argsort(draw(*keys, np.arange(count)), kind="stable").astype(np.int64)
