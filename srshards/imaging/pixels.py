"""The array type of images in this project."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # H x W x 3, RGB, C order, grey levels 0-255


def require_rgb(image: NDArray[Any]) -> None:
    """Raise ValueError unless the image is H x W x 3 uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected H x W x 3 uint8, got {image.shape} {image.dtype}")


def to_pixels(image: NDArray[np.float32]) -> Pixels:
    """Round and clip levels to uint8."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
