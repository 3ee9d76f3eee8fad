"""Crop boxes, resampling and statistics."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardgen.degradation.degrade import downsample
from shardgen.planning.boxes import Box, boxes, cropped_box, num_tiles
from shardgen.planning.config import METHODS
from shardgen.shard.statistics import ChannelSums, Statistics, psnr_up
from shardgen.shard.triplet import make_triplet
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import render_hr
from srshards.imaging.upsampling import upsample

edges = st.integers(1, 400)


@given(height=edges, width=edges)
def test_cover_is_the_largest_centred_square(height: int, width: int) -> None:
    (box,) = boxes(height, width, "cover", 64, 64)
    assert box.w == box.h == min(height, width)
    assert abs(2 * box.x + box.w - width) <= 1 and abs(2 * box.y + box.h - height) <= 1


@given(height=edges, width=edges, size=st.integers(16, 100), step=st.integers(4, 100))
def test_tiles_cover_the_photo_and_stay_inside(height: int, width: int, size: int, step: int) -> None:
    step = min(step, size)
    covered = np.zeros((height, width), bool)
    tiles = list(boxes(height, width, "tile", size, step))
    assert len(tiles) == len(set(tiles)) == num_tiles(height, width, size, step)
    for x, y, w, h in tiles:
        assert 0 <= x <= width - w and 0 <= y <= height - h and w == h == size
        covered[y : y + h, x : x + w] = True
    assert covered.all() == (min(height, width) >= size) or not tiles


def test_box_is_cropped_with_hr() -> None:
    assert cropped_box(Box(10, 20, 600, 600), 512, 512) == Box(10, 20, 600, 600)
    assert cropped_box(Box(10, 20, 512, 512), 512, 510) == Box(10, 20, 510, 510)


def ramp(size: int, axis: int) -> Pixels:
    """A grey ramp whose level is the coordinate in px."""
    line = np.arange(size, dtype=np.uint8)
    grid = np.broadcast_to(line[:, None] if axis == 0 else line[None, :], (size, size))
    return np.repeat(grid[:, :, None], 3, axis=2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("axis", [0, 1])
def test_lr_and_up_are_aligned_with_hr(method: str, scale: int, axis: int) -> None:
    """LR pixel i is centred on HR coordinate scale·i + (scale - 1)/2, in every method; `up` has no shift."""
    rising = ramp(240, axis)
    lr_centres = np.arange(240 // scale) * scale + (scale - 1) / 2
    for image, centres, border in (("lr", lr_centres, 4), ("up", np.arange(240), 4 * scale)):
        offsets = []
        for hr, sign in ((rising, 1), (239 - rising, -1)):  # rounding affects both alike, a shift with opposite signs
            triplet = make_triplet(hr, scale, method)
            pixels = triplet.up if image == "up" else triplet.lrs[0]
            line = np.moveaxis(pixels, axis, 0)[:, 0, 0].astype(float)
            levels = centres if sign == 1 else 239 - centres
            offsets.append(sign * (line - levels)[border:-border].mean())
        shift_px = sum(offsets) / 2
        assert abs(shift_px) <= (0.51 if method == "nearest" else 0.1)  # nearest selects whole pixels


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", range(2, 9))
def test_shapes_match_the_scale(method: str, scale: int) -> None:
    edge = 64 - 64 % scale
    hr = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)[:edge, :edge]
    lr = downsample(hr, scale, method)
    assert lr.shape == (edge // scale, edge // scale, 3) and lr.dtype == np.uint8
    assert upsample(lr, scale, method).shape == hr.shape


@pytest.mark.parametrize("method", METHODS)
def test_flat_image_stays_flat(method: str) -> None:
    flat = np.full((48, 48, 3), 201, np.uint8)
    triplet = make_triplet(flat, 4, method)
    assert (triplet.lrs[0] == 201).all() and (triplet.up == 201).all()


def test_area_averages_and_upsamples_with_cubic() -> None:
    hr = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    means = hr.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    assert np.abs(downsample(hr, 4, "area") - means).max() <= 0.5
    lr = downsample(hr, 4, "area")
    assert np.array_equal(upsample(lr, 4, "area"), upsample(lr, 4, "cubic"))


def test_photo_of_hr_size_is_not_resampled() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(render_hr(pixels, 64), pixels)


def test_hr_is_not_aliased_at_strong_reduction() -> None:
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than HR can represent: expected grey, no moire
    assert np.ptp(render_hr(stripes, 64).astype(int)) <= 60


pixels_of_any_size = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.default_rng(t[2]).integers(0, 256, (t[0], t[1], 3), dtype=np.uint8)
)


@given(pixels=pixels_of_any_size)
@example(pixels=np.full((2048, 2048, 3), 255, np.uint8))
def test_channel_sums_are_exact(pixels: Pixels) -> None:
    values = pixels.astype(np.int64)
    sums, squares = (tuple(array.sum(axis=(0, 1)).tolist()) for array in (values, values**2))
    assert ChannelSums.of(pixels) == ChannelSums(sums, squares)


def test_psnr_matches_its_definition() -> None:
    hr = np.zeros((8, 8, 3), np.uint8)
    assert psnr_up(hr, hr) is None
    assert psnr_up(hr, hr + 1) == pytest.approx(48.1308, abs=1e-4)
    assert psnr_up(hr, hr + 255) == 0.0


def test_statistics_do_not_depend_on_order() -> None:
    rng = np.random.default_rng(4)
    parts = []
    for number in range(6):
        part = Statistics()
        for _ in range(number):
            image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            part.add(f"class{number % 2}", 64, ChannelSums.of(image), float(rng.uniform(20, 40)))
        parts.append(part)
    assert Statistics.total(parts).as_dict() == Statistics.total(reversed(parts)).as_dict()
    assert Statistics.from_dict(parts[3].as_dict()) == parts[3]
    assert Statistics().summary()["psnr_up_db"]["mean"] is None
