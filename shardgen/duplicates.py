"""Pairs of hashes that differ in few bits, among many, without comparing each with each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shardgen.measures import HASH_BITS

_Hashes = NDArray[np.uint64]
_Numbers = NDArray[np.int64]


def near_pairs(hashes: _Hashes, max_distance: int) -> tuple[_Numbers, _Numbers, _Numbers]:
    """The places i < j of all hashes that differ in at most `max_distance` of their 64 bits, and in how many they do.

    No two hashes may be equal. Those that differ in d bits agree in at least one of d + 1 bands of bits, so only hashes
    that share a band are compared.
    """
    if not 0 <= max_distance < HASH_BITS:
        raise ValueError(f"expected a distance of 0 to {HASH_BITS - 1}, got {max_distance}")
    found = [np.empty((0, 2), np.int64)]
    edges = np.linspace(0, HASH_BITS, max_distance + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << high - low) - 1)
        found.append(_pairs_in_band(hashes, band, max_distance))
    pairs = np.unique(np.concatenate(found), axis=0)
    first, second = pairs[:, 0], pairs[:, 1]
    return first, second, distances(hashes[first], hashes[second])


def _pairs_in_band(hashes: _Hashes, band: _Hashes, max_distance: int) -> _Numbers:
    """Sorted by the band, equals stand together: each is compared with the next, the one after that, and so on."""
    order = np.argsort(band, kind="stable")
    in_order, bands = hashes[order], band[order]
    found = [np.empty((0, 2), np.int64)]
    here = np.arange(len(order) - 1)
    step = 1
    while len(here := here[here + step < len(order)]) and len(here := here[bands[here] == bands[here + step]]):
        near = here[distances(in_order[here], in_order[here + step]) <= max_distance]
        found.append(np.sort(np.stack([order[near], order[near + step]], axis=1), axis=1))
        step += 1
    return np.concatenate(found)


def distances(left: _Hashes, right: _Hashes) -> _Numbers:
    """In how many bits each pair of hashes differs."""
    bits = left ^ right
    # Sums of neighbouring bits, in fields of 2, 4, 8 bits; then all of them by one product.
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.asarray(bits * np.uint64(0x0101010101010101) >> np.uint64(56), dtype=np.int64)


def groups(count: int, first: _Numbers, second: _Numbers) -> list[list[int]]:
    """Those of 0 to count - 1 that pairs join, directly or by way of others: groups of two and more, in order."""
    leader = list(range(count))

    def lead(one: int) -> int:
        while leader[one] != one:
            leader[one] = one = leader[leader[one]]
        return one

    for left, right in zip(first.tolist(), second.tolist(), strict=True):
        low, high = sorted((lead(left), lead(right)))
        leader[high] = low
    members: dict[int, list[int]] = {}
    for one in range(count):
        members.setdefault(lead(one), []).append(one)
    return [group for group in members.values() if len(group) > 1]


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
    near = zip(*(numbers.tolist() for numbers in near_pairs(unique, max_distance)), strict=True)
    joined += [(of_hash[a][0], of_hash[b][0], distance) for a, b, distance in near]
    # A pair of two images of one photo says nothing of it, but may have hidden a third one behind the same hash.
    photo = {source: number for number, source in enumerate(dict.fromkeys(sources))}
    shown: dict[int, int] = {}
    pairs = []
    for a, b, distance in sorted(joined, key=lambda one: (one[2], one)):  # the nearest images are shown
        left, right = photo[sources[a]], photo[sources[b]]
        if left != right:
            shown.setdefault(left, a)
            shown.setdefault(right, b)
            pairs.append((left, right, distance))
    lefts, rights = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    found = groups(len(photo), lefts, rights)
    group_of = {member: number for number, members in enumerate(found) for member in members}
    widest = [0] * len(found)
    for left, _, distance in pairs:
        widest[group_of[left]] = max(widest[group_of[left]], distance)
    alike = [Alike(tuple(shown[one] for one in members), widest[number]) for number, members in enumerate(found)]
    return sorted(alike, key=lambda one: (one.distance, one.images))
