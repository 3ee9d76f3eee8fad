"""Image measures, perceptual hashes and near-duplicates."""

import io
from collections.abc import Iterable

import cv2
import numpy as np
import pytest
from helpers import make_photo
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shardgen.degradation.degrade import downsample
from shardgen.planning.config import METHODS
from shardgen.report.duplicates import bit_counts, near_duplicates, nearest_pairs
from shardgen.report.measures import aliased_part, aliasing, brightness, flatness, image_hash, sharpness
from srshards.imaging.luma import luma_full_range


def _grey(level: float, size: int = 64) -> np.ndarray:
    return np.full((size, size), level, np.float32)


def _wave(size: int, half_periods: int, amplitude: float = 100) -> np.ndarray:
    """One DCT frequency along the rows."""
    column = np.cos(np.pi / size * (np.arange(size) + 0.5) * half_periods)
    return (128 + amplitude * column[:, None] * np.ones(size)).astype(np.float32)


def test_brightness_ranges_from_0_to_1() -> None:
    assert (brightness(_grey(0)), brightness(_grey(255))) == (0, 1)
    assert brightness(_grey(51)) == pytest.approx(0.2)


def test_sharpness_falls_with_blur_and_is_bounded() -> None:
    photo = luma_full_range(make_photo(128, 128, seed=1))
    blurred = [sharpness(cv2.GaussianBlur(photo, (0, 0), sigma)) for sigma in (0.5, 1, 2, 4)]
    assert sorted(blurred, reverse=True) == blurred and sharpness(photo) > blurred[0]
    assert sharpness(_grey(7)) == -2
    checks = np.indices((64, 64)).sum(axis=0) % 2 * np.float32(2) - 1  # +1 and -1: its Laplacian is +-8
    assert sharpness(checks.astype(np.float32)) == pytest.approx(np.log10(64), abs=1e-6)


def test_flatness_is_the_share_of_flat_blocks() -> None:
    assert flatness(_grey(200)) == 1
    image = _grey(100)
    image[:16, :32] += np.indices((16, 32)).sum(axis=0) % 2 * 5  # standard deviation 2.5
    image[48:, :16] += np.indices((16, 16)).sum(axis=0) % 2 * 3  # 1.5
    assert flatness(image) == 14 / 16
    assert flatness(_grey(9, size=10)) == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("size", "scale"), [(64, 4), (63, 3), (40, 8)])
def test_only_frequencies_above_the_lr_limit_are_aliased(method: str, size: int, scale: int) -> None:
    below, above = size // scale - 1, size // scale + 2
    assert aliasing(_wave(size, below), scale, method) == pytest.approx(0, abs=1e-3)
    assert aliasing(_wave(size, above), scale, method) > 10
    assert aliasing(_grey(77, size), scale, method) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_aliases_are_lr_minus_the_resized_low_frequencies(method: str) -> None:
    pixels = np.repeat(luma_full_range(make_photo(64, 64, seed=2)).round().astype(np.uint8)[..., None], 3, axis=2)
    grey = luma_full_range(pixels)
    low = cv2.dct(grey)
    low[16:], low[:, 16:] = 0, 0
    low = cv2.idct(low)
    lr = luma_full_range(downsample(pixels, 4, method))
    low_pixels = np.repeat(low.round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    without = luma_full_range(downsample(low_pixels, 4, method))
    inside = slice(2, -2)  # Pillow's bicubic treats the border differently
    assert aliased_part(grey, 4, method)[inside, inside] == pytest.approx((lr - without)[inside, inside], abs=2.5)


def test_aliasing_orders_nearest_area_and_matlab() -> None:
    grey = luma_full_range(make_photo(128, 128, seed=3))
    found = [aliasing(grey, 4, method) for method in ("nearest", "area", "matlab")]
    assert sorted(found, reverse=True) == found


def test_aliasing_rejects_sizes_that_are_not_multiples() -> None:
    with pytest.raises(ValueError, match="expected a scale of 2 to 8 and multiples of it, got 3 and"):
        aliasing(_grey(0), 3, "cubic")


def _bits(left: np.ndarray, right: np.ndarray) -> int:
    return (image_hash(luma_full_range(left)) ^ image_hash(luma_full_range(right))).bit_count()


def test_hash_is_robust_to_small_changes() -> None:
    for seed in range(8):
        photo = make_photo(256, 256, seed=seed)
        stream = io.BytesIO()
        Image.fromarray(photo).save(stream, "JPEG", quality=50)
        assert _bits(photo, np.asarray(Image.open(stream))) <= 4
        assert _bits(photo, cv2.resize(photo, (100, 100), interpolation=cv2.INTER_AREA)) <= 4
        assert _bits(photo, np.clip(photo * 0.9, 0, 255).astype(np.uint8)) <= 4
        assert _bits(photo, make_photo(256, 256, seed=seed + 100)) > 10


def test_hash_is_the_signs_of_low_frequencies_without_the_mean() -> None:
    grey = luma_full_range(make_photo(64, 64, seed=5))
    small = grey.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    cosines = np.cos(np.pi / 32 * np.outer(np.arange(1, 9), np.arange(32) + 0.5))
    low = (cosines @ small @ cosines.T).ravel()
    assert f"{image_hash(grey):064b}" == "".join("1" if one > np.median(low) else "0" for one in low)


def test_hash_has_64_bits_half_of_them_set() -> None:
    value = image_hash(luma_full_range(make_photo(90, 90, seed=1)))
    assert 0 <= value < 2**64 and value.bit_count() == 32


_HASH = st.integers(0, 2**64 - 1)


def _spanning_forest(pairs: Iterable[tuple[int, int, int]], count: int) -> tuple[list[int], list[list[int]]]:
    """Return the distances of a minimum spanning forest, and the component of each node for each distance limit."""
    component, distances, by_distance = list(range(count)), [], []
    for distance in range(13):
        for first, second, _ in (pair for pair in pairs if pair[2] == distance):
            if component[first] != component[second]:
                distances.append(distance)
                low, high = sorted((component[first], component[second]))
                component = [low if one == high else one for one in component]
        by_distance.append(component)
    return distances, by_distance


@given(st.sets(_HASH, min_size=1, max_size=12), st.lists(st.tuples(st.integers(0, 50), _HASH)), st.integers(0, 12))
def test_nearest_pairs_are_a_spanning_forest(seeds: set[int], changes: list[tuple[int, int]], limit: int) -> None:
    """Some of the hashes differ from others by a few bits only."""
    some = sorted(seeds)
    near = {some[which % len(some)] ^ (bits & bits >> 13 & bits >> 29 & bits >> 41) for which, bits in changes}
    hashes = sorted(seeds | near)
    all_pairs = [
        (i, j, (a ^ b).bit_count())
        for i, a in enumerate(hashes)
        for j, b in enumerate(hashes)
        if i < j and (a ^ b).bit_count() <= limit
    ]
    found = nearest_pairs(np.array(hashes, np.uint64), limit)
    assert set(found) <= set(all_pairs)
    expected, got = _spanning_forest(all_pairs, len(hashes)), _spanning_forest(found, len(hashes))
    assert len(found) == len(got[0])  # no redundant pair
    assert got == expected


def test_near_duplicates_are_groups_of_different_photos() -> None:
    far = 0xFFFF_0000_FFFF_0000
    sources = ["a", "b", "b", "c", "d", "e"]
    hashes = [0b111, 0b110, 0b011, far, far ^ 1, 0x00FF_FF00_00FF_FF00]
    found = near_duplicates(sources, hashes, 1)
    assert [(alike.images, alike.distance) for alike in found] == [((0, 1), 1), ((3, 4), 1)]
    assert near_duplicates(["a", "a"], [5, 5], 3) == []  # two tiles of one photo
    same = near_duplicates(["a", "a", "b", "c"], [5, 5, 5, far], 3)
    assert [(alike.images, alike.distance) for alike in same] == [((1, 2), 0)]


@given(st.lists(_HASH))
def test_bits_are_counted_with_and_without_numpy_2(values: list[int]) -> None:
    expected = [value.bit_count() for value in values]
    assert bit_counts(np.array(values, np.uint64)).tolist() == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(np, "bitwise_count", raising=False)
        assert bit_counts(np.array(values, np.uint64)).tolist() == expected


def test_100_000_equal_hashes_are_one_group() -> None:
    count = 100_000
    found = near_duplicates([str(number) for number in range(count)], [7] * count, 6)
    assert len(found) == 1 and len(found[0].images) == count


def test_20_000_similar_hashes_are_one_group() -> None:
    """Like 20,000 images from a tripod: most of the 2e8 pairs are near, too many to store."""
    draw = np.random.default_rng(0)
    hashes = np.full(20_000, 0x1234_5678_9ABC_DEF0, np.uint64)
    for _ in range(3):
        hashes ^= np.uint64(1) << draw.integers(0, 64, len(hashes), dtype=np.uint64)
    found = near_duplicates([str(number) for number in range(len(hashes))], hashes.tolist(), 6)
    assert len(found) == 1 and len(found[0].images) == len(hashes) and found[0].distance <= 6
