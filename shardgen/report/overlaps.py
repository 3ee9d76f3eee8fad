"""Find photos that show parts of the same picture, e.g. overlapping crops of it, by local features."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from shardgen.report.duplicates import bit_counts
from shardgen.report.measures import Luma

# Measured on 700 photos, crops of 30 pictures: two crops of the same picture have up to 120 matches, two of different
# pictures at most 5.
MIN_MATCHES = 8
_EDGE_PX = 256  # of the image in which features are detected
_MAX_FEATURES = 128
_FAST_THRESHOLD = 8  # grey levels; OpenCV's default of 20 finds few features in soft photos
_MAX_DIFFERING_BITS = 40  # of 256
_TOLERANCE_PX = 4.0  # between a matched feature and its position by the transform
_CELL_PX = 6  # features within a cell, e.g. of several sizes, count as one
_MAX_ENLARGEMENT = 5.0
_INDEX_WIDTH = np.uint16  # descriptors that agree in one of their 16 parts of 16 bits are compared
# A part that more descriptors have says nothing: those of documents or stars are all alike. In photos, hardly any is so
# common, unless half of them are equal, and these are near-duplicates.
_MAX_COMMON_SHARE = 1 / (2 * _MAX_FEATURES)
_MIN_COMMON = 64
_BLOCK_PAIRS = 1 << 20  # compared at once, in about 150 MB


@dataclass(frozen=True)
class Features:
    """ORB features of an image: N positions (x, y) in px and N descriptors of 256 bits.

    Rublee et al., "ORB: an efficient alternative to SIFT or SURF", ICCV 2011.
    """

    positions: NDArray[np.float32]  # N x 2
    descriptors: NDArray[np.uint8]  # N x 32


def find_features(grey: Luma) -> Features:
    """Return the features of an image's luma, in 1 to 2 ms."""
    small = cv2.resize(grey, (_EDGE_PX, _EDGE_PX), interpolation=cv2.INTER_AREA)
    detector = cv2.ORB.create(nfeatures=_MAX_FEATURES, edgeThreshold=15, fastThreshold=_FAST_THRESHOLD)
    points, descriptors = detector.detectAndCompute(np.rint(small).astype(np.uint8), None)
    if not points:
        return Features(np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8))
    return Features(np.array([point.pt for point in points], np.float32), np.asarray(descriptors, np.uint8))


def overlaps(left: Sequence[Features], right: Sequence[Features]) -> list[tuple[int, int, int]]:
    """Return (i, j, matches) of the images `left[i]` and `right[j]` that show parts of the same picture.

    Their features must match after a shift, rotation and uniform scaling. An index of parts of the descriptors finds
    the candidates, so the time grows little faster than the number of images.
    """
    found = []
    for i, j, ours, theirs in _candidates(left, right):
        matches = _consistent(left[i].positions[ours], right[j].positions[theirs])
        if matches >= MIN_MATCHES:
            found.append((i, j, matches))
    return found


def _candidates(
    left: Sequence[Features], right: Sequence[Features]
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (i, j, features of i, features of j) of images with enough pairs of similar features."""
    if not left or not right:
        return
    owners = [np.repeat(np.arange(len(images)), [len(one.descriptors) for one in images]) for images in (left, right)]
    ours, theirs = _similar(*(np.concatenate([one.descriptors for one in images]) for images in (left, right)))
    if not len(ours):
        return
    pair = owners[0][ours] * len(right) + owners[1][theirs]
    order = np.argsort(pair, kind="stable")
    pair, ours, theirs = pair[order], ours[order], theirs[order]
    starts = np.flatnonzero(np.diff(pair, prepend=-1))
    firsts = [np.cumsum([0, *(len(one.descriptors) for one in images)]) for images in (left, right)]
    for start, end in zip(starts, [*starts[1:], len(pair)], strict=True):
        if end - start >= MIN_MATCHES:
            i, j = divmod(int(pair[start]), len(right))
            yield i, j, ours[start:end] - firsts[0][i], theirs[start:end] - firsts[1][j]


def _similar(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of pairs of descriptors that differ in few bits, of those that agree in some part."""
    words = [np.ascontiguousarray(side).view(np.uint64) for side in (left, right)]
    parts = [np.ascontiguousarray(side).view(_INDEX_WIDTH) for side in (left, right)]
    max_common = max(_MIN_COMMON, int(_MAX_COMMON_SHARE * len(right)))
    found = [np.empty(0, np.int64)]
    for number in range(parts[0].shape[1]):
        keys = np.ascontiguousarray(parts[0][:, number])
        order = np.argsort(parts[1][:, number], kind="stable")
        sorted_keys = parts[1][order, number]
        low, high = (np.searchsorted(sorted_keys, keys, side) for side in ("left", "right"))
        counts = np.where(high - low <= max_common, high - low, 0)
        for start, end in _blocks(counts):
            size = counts[start:end]
            ours = np.repeat(np.arange(start, end), size)
            theirs = order[np.arange(len(ours)) - np.repeat(np.cumsum(size) - size - low[start:end], size)]
            distance = bit_counts(words[0][ours] ^ words[1][theirs]).sum(axis=1, dtype=np.int64)
            near = distance <= _MAX_DIFFERING_BITS
            found.append(ours[near] * len(right) + theirs[near])
    unique = np.unique(np.concatenate(found))
    return unique // max(len(right), 1), unique % max(len(right), 1)


def _blocks(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of descriptors with about `_BLOCK_PAIRS` pairs each, `counts` of each descriptor."""
    block = np.cumsum(counts) // _BLOCK_PAIRS
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    yield from pairwise([*starts.tolist(), len(counts)])


def _consistent(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> int:
    """Return the number of features at different positions that one similarity transform maps to each other."""
    transform, inliers = cv2.estimateAffinePartial2D(
        ours, theirs, ransacReprojThreshold=_TOLERANCE_PX, maxIters=300, refineIters=0
    )
    if transform is None:
        return 0
    enlargement = float(np.hypot(transform[0, 0], transform[1, 0]))
    if not 1 / _MAX_ENLARGEMENT <= enlargement <= _MAX_ENLARGEMENT:
        return 0
    kept = inliers.ravel() > 0
    return min(len(np.unique(side[kept] // _CELL_PX, axis=0)) for side in (ours, theirs))
