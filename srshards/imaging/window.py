"""Where in an image there is most to see."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def strongest_window(field: NDArray[Any], height: int, width: int, step: int = 1) -> tuple[int, int]:
    """Top and left, multiples of `step`, of the height x width px with the greatest sum of an H x W float field.

    The first of equals. The window must not be larger than the field.
    """
    sums = cv2.integral(field)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    places = inside[::step, ::step]
    top, left = np.unravel_index(int(places.argmax()), places.shape)
    return int(top) * step, int(left) * step
