"""Comparison images of `upscale`: a crop by bicubic next to the network's."""

from pathlib import Path

import cv2
import numpy as np

from srshards.imaging.bicubic import bicubic_up
from srshards.imaging.contact_sheet import Row, grid, save_png
from srshards.imaging.luma import luma_full_range
from srshards.imaging.photo import DecodedPhoto
from srshards.imaging.pixels import Pixels
from srshards.imaging.window import strongest_window

_CROP_PX = 480  # edge of each half of the comparison, in px of the result
_CONTEXT_PX = 4  # around the crop, for the bicubic kernel
_MAX_CONTRAST = 12  # grey levels
_BACKGROUND = 96  # grey level behind transparent pixels


def write_comparison(path: Path, name: str, before: DecodedPhoto, after: DecodedPhoto, factor: int) -> None:
    """Write bicubic next to the network's result `after`, where the photo `before` has the most detail.

    `name` is the photo's name in the caption. RunError if writing fails.
    """
    small, large = _composite(before), _composite(after)
    top, left, height, width = _most_detailed(small, max(_CROP_PX // factor, 1))
    outer_top, outer_left = max(top - _CONTEXT_PX, 0), max(left - _CONTEXT_PX, 0)
    outer = small[outer_top : top + height + _CONTEXT_PX, outer_left : left + width + _CONTEXT_PX]
    inner_top, inner_left = (top - outer_top) * factor, (left - outer_left) * factor
    inner = (slice(inner_top, inner_top + height * factor), slice(inner_left, inner_left + width * factor))
    bicubic = bicubic_up(outer, factor)[inner]
    network = large[top * factor : (top + height) * factor, left * factor : (left + width) * factor]
    sizes = " to ".join(f"{image.shape[1]} x {image.shape[0]} px" for image in (small, large))
    comparison = grid([Row((bicubic, network), sizes, name)], ("bicubic", f"network, {factor}x"))
    save_png(comparison, path, "trainer upscale")


def _composite(photo: DecodedPhoto) -> Pixels:
    """Return the photo over a uniform grey background."""
    if photo.alpha is None:
        return photo.rgb
    opacity = photo.alpha[:, :, None].astype(np.float32) / 255
    return np.rint(photo.rgb * opacity + _BACKGROUND * (1 - opacity)).astype(np.uint8)


def _most_detailed(image: Pixels, crop_px: int) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the crop with the most local contrast, at most crop_px on a side."""
    height, width = (min(crop_px, size) for size in image.shape[:2])
    grey = luma_full_range(image)
    # Contrast is capped so that fine detail, in which the network and bicubic differ, outweighs one strong edge.
    contrast = np.minimum(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1)), _MAX_CONTRAST)
    return *strongest_window(contrast, height, width), height, width
