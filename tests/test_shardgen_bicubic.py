"""MATLAB's bicubic resampling against its definition, in exact integers with one dense matrix per direction."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from plain_pixels import imresize_weights
from skimage import data

from srshards.imaging.bicubic import bicubic_down, bicubic_up, crop_to_multiple

pytestmark = pytest.mark.slow

Pixels = NDArray[np.uint8]


def real_photo() -> Pixels:
    """512 x 512 x 3."""
    return np.ascontiguousarray(data.astronaut())


def by_definition(image: Pixels, height: int, width: int) -> Pixels:
    """H x W or H x W x C, in integers far below 2^63."""
    rows, row_denominator = imresize_weights(image.shape[0], Fraction(height, image.shape[0]))
    columns, column_denominator = imresize_weights(image.shape[1], Fraction(width, image.shape[1]))
    total = np.einsum("yh,hw...,xw->yx...", rows, image.astype(np.int64), columns, optimize=True)
    denominator = row_denominator * column_denominator
    return np.clip((2 * total + denominator) // (2 * denominator), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("scale", "height", "width"), [(2, 249, 253), (3, 165, 167), (4, 123, 127), (8, 63, 61)])
def test_photo_matches_the_definition_including_borders(scale: int, height: int, width: int) -> None:
    hr = real_photo()[-height * scale :, : width * scale]
    lr = bicubic_down(hr, scale)
    assert np.array_equal(lr, by_definition(hr, height, width))
    assert np.array_equal(bicubic_up(lr, scale), by_definition(lr, *hr.shape[:2]))


@pytest.mark.parametrize("scale", range(1, 17))
def test_ties_match_the_definition_at_every_scale(scale: int) -> None:
    """Sharp edges of few levels, which give many ties, in an image larger than a tile."""
    height, width = 280 // scale + 1, 9
    levels = np.array([0, 32, 127, 128, 129, 255], np.uint8)
    random = np.random.default_rng(scale)
    hr = random.choice(levels, (height * scale, width * scale))
    assert np.array_equal(bicubic_down(hr, scale), by_definition(hr, height, width))
    lr = random.choice(levels, (width, height))
    assert np.array_equal(bicubic_up(lr, scale), by_definition(lr, width * scale, height * scale))


@settings(max_examples=60)
@given(
    image=arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    scale=st.integers(1, 6),
)
def test_any_small_image_matches_the_definition(image: Pixels, scale: int) -> None:
    """Including images smaller than the kernel, which are mirrored more than once."""
    height, width = image.shape[:2]
    assert np.array_equal(bicubic_up(image, scale), by_definition(image, height * scale, width * scale))
    large = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)
    assert np.array_equal(bicubic_down(large, scale), by_definition(large, height, width))


@settings(max_examples=30)
@given(level=st.integers(0, 255), scale=st.integers(1, 16), height=st.integers(1, 5), width=st.integers(1, 5))
def test_flat_image_stays_flat(level: int, scale: int, height: int, width: int) -> None:
    flat = np.full((height * scale, width * scale, 3), level, np.uint8)
    assert (bicubic_down(flat, scale) == level).all() and bicubic_down(flat, scale).shape == (height, width, 3)
    assert (bicubic_up(flat[:height, :width], scale) == level).all()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_flips_and_rotations_commute_with_resizing(scale: int) -> None:
    """Integer sums do not depend on the order of their terms."""
    hr = crop_to_multiple(real_photo()[:100, :130], scale)
    for resize in (bicubic_down, bicubic_up):
        for transform in (np.flipud, np.fliplr, np.rot90):
            assert np.array_equal(resize(np.ascontiguousarray(transform(hr)), scale), transform(resize(hr, scale)))


def test_ties_are_rounded_up() -> None:
    """At 2x the kernel at a step from 0 to v has weights of 1/128; v is chosen for sums that end in exactly a half."""
    step = np.repeat(np.array([[[0], [32]]], np.uint8), 3, axis=2)  # 1 x 2 px
    weights, denominator = imresize_weights(2, Fraction(2))
    exact = weights @ [0, 32] / denominator
    assert np.any(exact % 1 == 0.5), "the test has no tie to test"
    assert bicubic_up(step, 2)[0, :, 0].tolist() == np.clip(np.floor(exact + 0.5), 0, 255).tolist()


def test_overshoot_is_clipped() -> None:
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    upscaled = bicubic_up(edge, 4)
    assert upscaled.min() == 0 and upscaled.max() == 255
    assert np.all(np.diff(upscaled[0, 12:20, 0].astype(int)) >= 0), "wrapped around instead of clipped"


def test_scale_1_returns_an_equal_copy() -> None:
    image = real_photo()[:20, :30]
    for resized in (bicubic_down(image, 1), bicubic_up(image, 1)):
        assert np.array_equal(resized, image) and not np.shares_memory(resized, image)


def test_views_and_single_planes_equal_contiguous_rgb() -> None:
    photo = real_photo()
    view = photo[3:123:2, 200:80:-1]
    assert np.array_equal(bicubic_up(view, 3), bicubic_up(view.copy(), 3))
    assert np.array_equal(bicubic_down(view, 2), bicubic_down(view.copy(), 2))
    plane = np.ascontiguousarray(view[:, :, 0])
    assert np.array_equal(bicubic_up(plane, 3), bicubic_up(view, 3)[:, :, 0])
    assert np.array_equal(bicubic_down(plane, 4), bicubic_down(view, 4)[:, :, 0])
    plane.setflags(write=False)  # as are pixels read from a shard
    assert np.array_equal(bicubic_up(plane, 2), bicubic_up(view, 2)[:, :, 0])


def test_threads_do_not_share_results() -> None:
    photo = real_photo()
    images = [crop_to_multiple(photo[:, : 300 - 20 * number], 4) for number in range(8)]
    expected = [bicubic_down(image, 4) for image in images]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda image: bicubic_down(image, 4), images * 4))
    assert all(np.array_equal(*pair) for pair in zip(found, expected * 4, strict=True))


def test_result_is_close_to_pillow_but_not_opencv() -> None:
    """Pillow uses the same kernel but clips between the passes; OpenCV uses a = -0.75 without antialiasing."""
    hr = real_photo()
    lr = bicubic_down(hr, 4).astype(int)
    pillow = np.asarray(Image.fromarray(hr).resize((128, 128), Image.Resampling.BICUBIC)).astype(int)
    opencv = cv2.resize(hr, (128, 128), interpolation=cv2.INTER_CUBIC).astype(int)
    inside = (slice(4, -4), slice(4, -4))  # Pillow truncates the kernel at the border instead of mirroring the image
    assert np.abs(lr - pillow)[inside].mean() < 0.3
    assert np.abs(lr - opencv)[inside].mean() > 2


@pytest.mark.parametrize(
    ("image", "scale", "message"),
    [
        (np.zeros((9, 8, 3), np.uint8), 2, r"multiples of 2, got 8 x 9 px: crop_to_multiple"),
        (np.zeros((8, 9, 3), np.uint8), 4, r"multiples of 4, got 9 x 8 px"),
        (np.zeros((8, 8, 3), np.float32), 2, r"uint8 with pixels, got \(8, 8, 3\) float32"),
        (np.zeros((1, 8, 8, 3), np.uint8), 2, r"got \(1, 8, 8, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), 2, r"with pixels, got \(0, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), 0, "scale of 1 to 16, got 0"),
        (np.zeros((17, 17, 3), np.uint8), 17, "scale of 1 to 16, got 17"),
    ],
)
def test_invalid_images_and_scales_are_rejected(image: Pixels, scale: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bicubic_down(image, scale)
    if "multiples" not in message:
        with pytest.raises(ValueError, match=message):
            bicubic_up(image, scale)


def test_crop_to_multiple_keeps_the_top_left() -> None:
    image = real_photo()[:23, :35]
    assert np.array_equal(crop_to_multiple(image, 4), image[:20, :32])
    assert crop_to_multiple(image, 1).shape == image.shape
    assert np.shares_memory(crop_to_multiple(image, 4), image)
