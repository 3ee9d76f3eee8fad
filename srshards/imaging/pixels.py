"""What an image is in this project."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # H x W x 3, RGB, C order, grey levels 0-255


def to_pixels(image: NDArray[np.float32]) -> Pixels:
    """Grey levels, whatever they are, to whole ones from 0 to 255."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
