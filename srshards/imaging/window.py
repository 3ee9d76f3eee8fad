"""Find the window of an image with the most detail."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def strongest_window(field: NDArray[Any], height: int, width: int, step: int = 1) -> tuple[int, int]:
    """Return top and left, multiples of `step`, of the height x width window with the largest sum of an H x W field.

    Ties go to the first window. The window must not be larger than the field.
    """
    sums = cv2.integral(field)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    candidates = inside[::step, ::step]
    top, left = np.unravel_index(int(candidates.argmax()), candidates.shape)
    return int(top) * step, int(left) * step
