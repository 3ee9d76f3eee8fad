"""Luma of ITU-R BT.601 in its two ranges: full (0-255) for image statistics, studio (16-235) for PSNR-Y."""

import cv2
import numpy as np
from numpy.typing import NDArray

from srshards.imaging.pixels import Pixels, require_rgb

# ITU-R BT.601 in studio range: Y of RGB from 0 to 1, and the Y of black.
STUDIO_WEIGHTS = (65.481, 128.553, 24.966)
STUDIO_BLACK = 16


def luma_full_range(rgb: Pixels) -> NDArray[np.float32]:
    """Return Y' = 0.299 R + 0.587 G + 0.114 B of H x W x 3 uint8, as H x W integer levels from 0 to 255.

    ITU-R BT.601-7, section 2.5.1, in full range, as in JPEG (ITU-T T.871); OpenCV's RGB2GRAY.
    ValueError for another shape or dtype.
    """
    require_rgb(rgb)
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def luma_studio_range(rgb: Pixels) -> NDArray[np.float64]:
    """Return Y = (65.481 R + 128.553 G + 24.966 B) / 255 + 16 of H x W x 3 uint8, as H x W from 16 to 235.

    BT.601 in studio range, as MATLAB's rgb2ycbcr, but not rounded to integers, as in BasicSR; scripts that round first,
    as MATLAB does, report figures that differ in the second decimal. ValueError for another shape or dtype.
    """
    require_rgb(rgb)
    weights = np.array([STUDIO_WEIGHTS]) / 255
    return np.asarray(cv2.transform(rgb.astype(np.float64), weights), np.float64) + STUDIO_BLACK
