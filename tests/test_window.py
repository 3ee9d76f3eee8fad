"""The window of an image with the largest sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srshards.imaging.window import strongest_window


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_strongest_window_has_the_largest_sum(
    size: tuple[int, int], window: tuple[int, int], step: int, seed: int
) -> None:
    height, width = (min(edge, limit) for edge, limit in zip(window, size, strict=True))
    field = np.random.default_rng(seed).integers(0, 9, size).astype(np.float32)
    sums = {
        (top, left): field[top : top + height, left : left + width].sum()
        for top in range(0, size[0] - height + 1, step)
        for left in range(0, size[1] - width + 1, step)
    }
    assert strongest_window(field, height, width, step) == max(sums, key=lambda corner: sums[corner])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_strongest_window_of_zeros_is_the_first(dtype: type) -> None:
    assert strongest_window(np.zeros((5, 7), dtype), 2, 3) == (0, 0)
