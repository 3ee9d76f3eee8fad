"""Hashes that differ in few bits, among many, without comparing each with each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shardgen.report.measures import HASH_BITS

_Hashes = NDArray[np.uint64]
_Numbers = NDArray[np.int64]

_PAIRS_AT_ONCE = 1_000_000
_MANY = 500  # in a band


def nearest_pairs(hashes: _Hashes, max_distance: int) -> tuple[_Numbers, _Numbers, _Numbers]:
    """The places i < j of hashes that differ in at most `max_distance` of their 64 bits, and in how many they do.

    Not all such pairs, of which n hashes that are alike have n²/2, but a spanning forest of them: as few as join what
    all of them join and, but for more than 500 of one band, the nearest. No two hashes may be equal. Those that differ
    in d bits agree in at least one of d + 1 bands of bits, so only hashes that share a band are compared.
    """
    if not 0 <= max_distance < HASH_BITS:
        raise ValueError(f"expected a distance of 0 to {HASH_BITS - 1}, got {max_distance}")
    forest = _Forest(len(hashes), max_distance)
    edges = np.linspace(0, HASH_BITS, max_distance + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << high - low) - 1)
        _join_in_band(hashes, band, forest)
    first, second, distance = forest.settled().T
    return first, second, distance


class _Forest:
    """A minimum spanning forest of pairs that come in any number and order, with memory for some of them."""

    def __init__(self, count: int, max_distance: int) -> None:
        self.max_distance = max_distance
        self._pairs = [np.empty((0, 3), np.int64)]  # first, second, distance
        # By distance: what pairs of at most that many bits joined, when they were last settled, has one number.
        self._joined = np.tile(np.arange(count), (max_distance + 1, 1))

    def add(self, first: _Numbers, second: _Numbers, distance: _Numbers) -> None:
        new = self._joined[distance, first] != self._joined[distance, second]
        if new.any():
            ends = np.sort(np.stack([first[new], second[new]], axis=1), axis=1)
            self._pairs.append(np.column_stack([ends, distance[new]]))
            if sum(map(len, self._pairs[1:])) > _PAIRS_AT_ONCE:
                self.settled()

    def settled(self) -> _Numbers:
        """Its pairs, n x 3, the nearest first: Kruskal's algorithm, all pairs of one distance at a time."""
        pairs = np.concatenate(self._pairs)
        root = np.arange(self._joined.shape[1])
        kept = [np.empty((0, 3), np.int64)]
        for distance in range(self.max_distance + 1):
            here = pairs[pairs[:, 2] == distance]
            while len(here := here[root[here[:, 0]] != root[here[:, 1]]]):
                # Each tree is put below one of a lower number that a pair leads to, which makes no circles.
                ends = np.sort(root[here[:, :2]], axis=1)
                upper, chosen = np.unique(ends[:, 1], return_index=True)
                kept.append(here[chosen])
                root[upper] = ends[chosen, 0]
                while len(np.flatnonzero(root != root[root])):
                    root = root[root]
            self._joined[distance] = root
        self._pairs = [np.concatenate(kept)]
        return self._pairs[0]


def _join_in_band(hashes: _Hashes, band: _Hashes, forest: _Forest) -> None:
    """Sorted by the band, equals stand together: each is compared with the next, the one after that, and so on."""
    order = np.argsort(band, kind="stable")
    starts = np.flatnonzero(np.diff(band[order], prepend=~band[order[:1]]))
    sizes = np.diff(starts, append=len(order))
    for start, size in zip(starts[sizes > _MANY].tolist(), sizes[sizes > _MANY].tolist(), strict=True):
        _join_many(hashes, order[start : start + size], forest)
    order = order[np.repeat(sizes <= _MANY, sizes)]
    in_order, bands = hashes[order], band[order]
    here = np.arange(len(order) - 1)
    step = 1
    while len(here := here[here + step < len(order)]) and len(here := here[bands[here] == bands[here + step]]):
        distance = distances(in_order[here], in_order[here + step])
        near = distance <= forest.max_distance
        forest.add(order[here[near]], order[here[near] + step], distance[near])
        step += 1


def _join_many(hashes: _Hashes, places: _Numbers, forest: _Forest) -> None:
    """From one of them to all that are near it, on from each of those to what is left, and so on.

    Nearly equal images are many of one band, and few steps join them. Pairs of what is joined already are not looked
    at, so some of those that join it may not be the nearest.
    """
    values = hashes[places]
    waiting: list[int] = []
    while len(places):
        if not waiting:
            waiting = [int(places[0])]
            places, values = places[1:], values[1:]
        one = waiting.pop()
        distance = distances(values, hashes[one])
        near = distance <= forest.max_distance
        if near.any():
            forest.add(places[near], np.full(int(near.sum()), one), distance[near])
            waiting += places[near].tolist()
            places, values = places[~near], values[~near]


def distances(left: _Hashes, right: _Hashes | np.uint64) -> _Numbers:
    """In how many bits each pair of hashes differs."""
    bits = left ^ right
    # Sums of neighbouring bits, in fields of 2, 4, 8 bits; then all of them by one product.
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.asarray(bits * np.uint64(0x0101010101010101) >> np.uint64(56), dtype=np.int64)


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
    near = zip(*(numbers.tolist() for numbers in nearest_pairs(unique, max_distance)), strict=True)
    joined += [(of_hash[a][0], of_hash[b][0], distance) for a, b, distance in near]
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
