"""Find near-duplicate photos: those whose perceptual hashes differ in few bits."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Hashes = NDArray[np.uint64]
Photo = TypeVar("Photo", bound=Hashable)
_FAR = 255  # above any distance


def nearest_pairs(hashes: _Hashes, max_distance: int) -> list[tuple[int, int, int]]:
    """Return (i, j, distance) with i < j: a minimum spanning forest of the hashes that differ in few bits.

    n similar hashes have n²/2 pairs; the n - 1 pairs of a minimum spanning tree connect the same hashes. By Prim's
    algorithm, which compares all pairs: on one core 0.1 s for 10,000 hashes, 6 s for 100,000, and so 10 minutes for
    1,000,000, whose images take several times as long to measure. NumPy 1 takes four times as long.
    """
    remaining = hashes[1:].copy()  # not in any tree yet
    indices = np.arange(1, len(hashes))
    nearest = np.full(len(remaining), _FAR, np.uint8)  # distance to the trees so far
    neighbour = np.zeros(len(remaining), np.int64)  # index of the nearest hash in them
    joined, pairs = 0, []
    for count in range(len(remaining), 0, -1):
        distance = bit_counts(remaining[:count] ^ hashes[joined])
        closer = distance < nearest[:count]
        np.copyto(nearest[:count], distance, where=closer)
        np.copyto(neighbour[:count], joined, where=closer)
        next_one = int(nearest[:count].argmin())
        joined = int(indices[next_one])
        if nearest[next_one] <= max_distance:
            other = int(neighbour[next_one])
            pairs.append((min(joined, other), max(joined, other), int(nearest[next_one])))
        for values in (remaining, indices, nearest, neighbour):  # remove it by moving the last one here
            values[next_one] = values[count - 1]
    return pairs


def bit_counts(values: _Hashes) -> NDArray[np.uint8]:
    """Return the number of set bits of each value."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.asarray(np.bitwise_count(values), np.uint8)
    # Sums of adjacent bits in fields of 2, 4 and 8 bits, then the sum of the fields by a multiplication.
    values = values - ((values >> np.uint64(1)) & np.uint64(0x5555555555555555))
    values = (values & np.uint64(0x3333333333333333)) + ((values >> np.uint64(2)) & np.uint64(0x3333333333333333))
    values = (values + (values >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.asarray(values * np.uint64(0x0101010101010101) >> np.uint64(56), np.uint8)


@dataclass(frozen=True)
class DuplicateGroup:
    """Similar photos: the index of one image of each, and the greatest distance of neighbours in bits."""

    images: tuple[int, ...]
    distance: int


def near_duplicates(sources: Sequence[Photo], hashes: Sequence[int], max_distance: int) -> list[DuplicateGroup]:
    """Group photos that have images with similar hashes, sorted by distance, then by first image.

    `sources[i]` is the photo of the image with `hashes[i]`. Images (tiles) of the same photo are not compared.
    """
    unique, which = np.unique(np.array(hashes, np.uint64), return_inverse=True)
    of_hash: dict[int, list[int]] = {}
    for image, number in enumerate(which.tolist()):
        of_hash.setdefault(number, []).append(image)
    joined = [(a, b, 0) for images in of_hash.values() for a, b in pairwise(images)]
    joined += [(of_hash[a][0], of_hash[b][0], distance) for a, b, distance in nearest_pairs(unique, max_distance)]
    parent = {source: source for source in sources}  # a disjoint-set forest of photos

    def root(source: Photo) -> Photo:
        while parent[source] != source:
            parent[source] = source = parent[parent[source]]
        return source

    shown: dict[Photo, int] = {}
    max_distances: dict[Photo, int] = {}  # by root
    for a, b, distance in sorted(joined, key=lambda pair: (pair[2], pair)):  # so that the most similar images are shown
        # Pairs of images of the same photo are kept, because a third image may be connected only through them.
        left, right = root(sources[a]), root(sources[b])
        if sources[a] != sources[b]:
            shown.setdefault(sources[a], a)
            shown.setdefault(sources[b], b)
        if left != right:
            parent[right] = left
            max_distances[left] = distance
    members: dict[Photo, list[int]] = {}
    for source, image in shown.items():
        members.setdefault(root(source), []).append(image)
    groups = [DuplicateGroup(tuple(sorted(images)), max_distances[source]) for source, images in members.items()]
    return sorted(groups, key=lambda group: (group.distance, group.images))
