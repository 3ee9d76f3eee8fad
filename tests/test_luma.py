"""Luma in both ranges, compared with scikit-image and with manually computed values."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers import make_photo
from numpy.typing import NDArray
from skimage.color import rgb2ycbcr

from srshards.imaging.luma import luma_full_range, luma_studio_range

COLOURS = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)


def test_full_range_is_0_to_255_in_integer_levels() -> None:
    y = luma_full_range(COLOURS)
    assert y.dtype == np.float32 and y.tolist() == [[0, 255, 76, 150, 29]]
    photo = make_photo(40, 30, 1)
    exact = photo @ np.array([0.299, 0.587, 0.114])
    assert luma_full_range(photo).shape == (40, 30) and np.abs(luma_full_range(photo) - exact).max() < 0.51


def test_studio_range_is_16_to_235() -> None:
    assert luma_studio_range(COLOURS)[0].tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966])


def test_studio_range_equals_matlab_without_rounding() -> None:
    photo = make_photo(120, 90, 2)
    y = luma_studio_range(photo)
    assert y.dtype == np.float64 and y.shape == (120, 90)
    assert np.abs(y - rgb2ycbcr(photo)[:, :, 0]).max() < 1e-9
    assert (y != np.round(y)).any()


@pytest.mark.parametrize("function", [luma_full_range, luma_studio_range])
@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_other_shapes_and_dtypes_are_rejected(function: Callable[..., object], image: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match="expected H x W x 3 uint8, got"):
        function(image)
