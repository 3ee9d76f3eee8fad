"""Upsample LR to `up`: complete images, and crops of them with exactly the same pixels."""

import math
from typing import NamedTuple

from srshards.imaging.bicubic import bicubic_up
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import resize

# OpenCV's kernel for each method. Area averaging is for downsampling only: OpenCV's "area" upsampling is a distorted
# linear interpolation.
_KERNELS = {"nearest": "nearest", "linear": "linear", "cubic": "cubic", "area": "cubic", "lanczos": "lanczos"}
UPSAMPLING_METHODS = (*_KERNELS, "matlab")

# In LR px: half of the widest kernel, Lanczos. Below 4 px, OpenCV may use code that rounds differently.
MARGIN_PX = 4
# OpenCV's own cubic computes the last values of a row, too few for a vector register, by scalar code that may round
# differently. No register of x86 or ARM holds more values.
_VECTOR_VALUES = 64
# OpenCV computes the coefficients of its kernels from float32 coordinates and rounds them to 1/2048. Coordinates are
# exact at powers of two; at other scales, some coefficients are rounded differently beyond these positions, in LR px.
_EXACT_UP_TO_PX = {3: 512, 5: 512, 6: 256, 7: 512}


class UpsampledPart(NamedTuple):
    """An upsampled part of an image, and the position in it, in px, of the crop that was asked for."""

    pixels: Pixels
    top: int
    left: int


def upsample(lr: Pixels, scale: int, method: str) -> Pixels:
    """Return `up`: `lr` (H x W x 3) at `scale` times its height and width, by one of `UPSAMPLING_METHODS`."""
    if method == "matlab":
        return bicubic_up(lr, scale)
    return resize(lr, lr.shape[0] * scale, lr.shape[1] * scale, _KERNELS[method])


def upsample_part(lr: Pixels, top: int, left: int, size: int, scale: int, method: str) -> UpsampledPart:
    """Upsample the part of an image that determines a crop of size x size px at (top, left), all in LR px.

    The crop has the same bytes as in `upsample` of the complete image.
    """
    height, width = lr.shape[:2]
    if max(height, width) > _EXACT_UP_TO_PX.get(scale, max(height, width)):
        return UpsampledPart(upsample(lr, scale, method), top * scale, left * scale)
    first_row, last_row = max(0, top - MARGIN_PX), min(height, top + size + MARGIN_PX)
    first, last = _columns(left, left + size, width, scale)
    pixels = upsample(lr[first_row:last_row, first:last], scale, method)
    return UpsampledPart(pixels, (top - first_row) * scale, (left - first) * scale)


def _columns(left: int, right: int, width: int, scale: int) -> tuple[int, int]:
    """Return the range of columns to upsample for a crop, so that no end of a row is in it.

    A crop near the right border has the ends of the complete image's rows. There, as many values have to remain for
    scalar code as in the complete image, so the range starts at a multiple of the vector size.
    """
    first, last = max(0, left - MARGIN_PX), right + max(MARGIN_PX, math.ceil(_VECTOR_VALUES / (3 * scale)))
    if last < width:
        return first, last
    return first - first % (_VECTOR_VALUES // math.gcd(_VECTOR_VALUES, scale)), width
