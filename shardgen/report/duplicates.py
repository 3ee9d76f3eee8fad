"""Photos that look alike: those whose hashes differ in few bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_Hashes = NDArray[np.uint64]
_FAR = 255


def nearest_pairs(hashes: _Hashes, max_distance: int) -> list[tuple[int, int, int]]:
    """Pairs i < j of hashes, and in how many bits they differ: a minimum spanning forest of all that differ in few.

    Of n hashes that are alike there are n²/2 pairs; these n - 1 join the same, and the nearest. Prim's algorithm, which
    compares each with each: on one core 0.1 s for 10,000 hashes, 6 s for 100,000 and so 10 minutes for 1,000,000, whose
    images take several times as long to be measured. NumPy 1 takes four times that.
    """
    left = hashes[1:].copy()  # that are in no tree yet
    numbers = np.arange(1, len(hashes))
    nearest = np.full(len(left), _FAR, np.uint8)  # of the trees so far: in how many bits, and to whom
    neighbour = np.zeros(len(left), np.int64)
    joined, pairs = 0, []
    for count in range(len(left), 0, -1):
        distance = bit_counts(left[:count] ^ hashes[joined])
        closer = distance < nearest[:count]
        np.copyto(nearest[:count], distance, where=closer)
        np.copyto(neighbour[:count], joined, where=closer)
        place = int(nearest[:count].argmin())
        joined = int(numbers[place])
        if nearest[place] <= max_distance:
            other = int(neighbour[place])
            pairs.append((min(joined, other), max(joined, other), int(nearest[place])))
        for values in (left, numbers, nearest, neighbour):  # the last one takes its place
            values[place] = values[count - 1]
    return pairs


def bit_counts(values: _Hashes) -> NDArray[np.uint8]:
    """How many bits of each number are set."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.asarray(np.bitwise_count(values), np.uint8)
    # Sums of neighbouring bits, in fields of 2, 4, 8 bits; then all of them by one product.
    values = values - ((values >> np.uint64(1)) & np.uint64(0x5555555555555555))
    values = (values & np.uint64(0x3333333333333333)) + ((values >> np.uint64(2)) & np.uint64(0x3333333333333333))
    values = (values + (values >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.asarray(values * np.uint64(0x0101010101010101) >> np.uint64(56), np.uint8)


@dataclass(frozen=True)
class Alike:
    """Photos that look alike: the number of one image of each, and in how many bits neighbours differ at most."""

    images: tuple[int, ...]
    distance: int


def look_alikes(sources: Sequence[str], hashes: Sequence[int], max_distance: int) -> list[Alike]:
    """Groups of photos of which images have near hashes. Two images (tiles) of one photo are not compared.

    `sources[i]` is the photo of the image with `hashes[i]`. In order of their distance, then of their first image.
    """
    unique, which = np.unique(np.array(hashes, np.uint64), return_inverse=True)
    of_hash: dict[int, list[int]] = {}
    for image, number in enumerate(which.tolist()):
        of_hash.setdefault(number, []).append(image)
    joined = [(a, b, 0) for images in of_hash.values() for a, b in pairwise(images)]
    joined += [(of_hash[a][0], of_hash[b][0], distance) for a, b, distance in nearest_pairs(unique, max_distance)]
    leader = {source: source for source in sources}

    def lead(source: str) -> str:
        while leader[source] != source:
            leader[source] = source = leader[leader[source]]
        return source

    shown: dict[str, int] = {}
    widest: dict[str, int] = {}  # of the photos that each leads
    for a, b, distance in sorted(joined, key=lambda one: (one[2], one)):  # the nearest images are shown
        # A pair of two images of one photo says nothing of it, but may have hidden a third one behind the same hash.
        left, right = lead(sources[a]), lead(sources[b])
        if sources[a] != sources[b]:
            shown.setdefault(sources[a], a)
            shown.setdefault(sources[b], b)
        if left != right:
            leader[right] = left
            widest[left] = distance
    members: dict[str, list[int]] = {}
    for source, image in shown.items():
        members.setdefault(lead(source), []).append(image)
    alike = [Alike(tuple(sorted(images)), widest[one]) for one, images in members.items()]
    return sorted(alike, key=lambda one: (one.distance, one.images))
