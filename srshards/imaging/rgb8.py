"""Convert loaded images of any mode to 8-bit RGB, in bands of rows to limit temporary memory.

16-bit levels are rounded to 8 bits. OpenCV reads 16-bit colour, because Pillow truncates it to 8 bits. A colour profile
is applied to the levels in 8 bits, before alpha.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srshards.errors import PhotoError
from srshards.imaging import png_file, tiff_file
from srshards.imaging.colour_profile import SrgbConversion
from srshards.imaging.pixels import Pixels

_BAND_PX = 1 << 20


def to_rgb8(image: Image.Image, data: bytes, keep_alpha: bool, conversion: SrgbConversion | None) -> Pixels:
    """Convert a loaded image to H x W x 3 uint8 or, if alpha is kept, H x W x 4. May close the image.

    `data` is the content of its file. Without `keep_alpha`, the image is composited over black, because the colour of
    transparent pixels is often garbage. `conversion` applies the image's colour profile, if it has one.
    """
    if image.mode in ("I", "F") and image.format != "PPM":
        kind = "floating point" if image.mode == "F" else "integers"
        raise PhotoError(f"32-bit {kind}: expected 8 or 16 bits per channel")
    width, height = image.size
    if image.mode in ("RGB", "RGBA") and _has_16_bits(image, data):
        # OpenCV treats the fourth channel of any TIFF as alpha; Pillow follows the tags.
        channels = len(image.mode) if image.format == "TIFF" else 4
        image.close()  # free its memory: its pixels are truncated to 8 bits
        levels = _decode_16_bit_colour(data)[:, :, :channels]
        order = [2, 1, 0, 3][: levels.shape[2]]  # OpenCV's order is BGR
        return _to_rgb(height, width, lambda rows: levels[rows][:, :, order], keep_alpha, conversion)
    if image.mode == "CMYK" and conversion:
        return conversion.apply(np.asarray(image))
    inverted = image.format == "TIFF" and tiff_file.white_is_zero(image)
    if image.format == "PNG" and image.mode == "L" and "transparency" in image.info:
        max_level = 2 ** png_file.bits_per_channel(data) - 1
        image.info["transparency"] *= 255 // max_level  # Pillow scaled the pixels by the same factor

    def part_of(rows: slice) -> NDArray[Any]:
        part = image.crop((0, rows.start, width, rows.stop))
        return _grey_16(part, inverted) if part.mode.startswith("I") else _colour_8(part)

    return _to_rgb(height, width, part_of, keep_alpha, conversion)


def _has_16_bits(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return png_file.bits_per_channel(data) == 16
    return image.format == "TIFF" and tiff_file.bits_per_channel(image) == 16


def _decode_16_bit_colour(data: bytes) -> NDArray[np.uint16]:
    """Return H x W x 3 or, with alpha, H x W x 4, in BGR order."""
    if data.startswith(png_file.SIGNATURE):
        data = png_file.pixels_only(data)
    levels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.dtype != np.uint16 or levels.ndim != 3:
        raise PhotoError("damaged 16-bit image")
    return levels


def _grey_16(image: Image.Image, inverted: bool) -> NDArray[np.uint16]:
    """Return H x W x 3 or, with alpha, H x W x 4. `inverted`: zero is white, which Pillow handles only for 8 bits."""
    grey = np.asarray(image).astype(np.uint16)
    channels = [65535 - grey if inverted else grey] * 3
    if "transparency" in image.info:  # the one transparent level of a PNG
        channels.append(np.where(grey == image.info["transparency"], 0, 65535).astype(np.uint16))
    return np.stack(channels, axis=2)


def _colour_8(image: Image.Image) -> Pixels:
    """Return H x W x 3 or, with alpha, H x W x 4."""
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _to_rgb(
    height: int,
    width: int,
    part_of: Callable[[slice], NDArray[Any]],
    keep_alpha: bool,
    conversion: SrgbConversion | None,
) -> Pixels:
    """Convert the bands returned by `part_of` (8- or 16-bit) to 8-bit RGB or, if alpha is kept, RGBA."""
    pixels: Pixels | None = None
    band = max(1, _BAND_PX // width)
    for top in range(0, height, band):
        rows = slice(top, min(top + band, height))
        part = part_of(rows)
        if conversion:
            part = _to_8_bit(part)
            part = np.dstack([conversion.apply(part[:, :, :3]), part[:, :, 3:]])
        part = _to_8_bit(part if keep_alpha else _over_black(part))
        if pixels is None:
            pixels = np.empty((height, width, part.shape[2]), np.uint8)
        pixels[rows] = part
    assert pixels is not None
    return pixels


def _over_black(levels: NDArray[Any]) -> NDArray[Any]:
    if levels.shape[2] == 3:
        return levels
    opaque = np.iinfo(levels.dtype).max
    colour, alpha = levels[:, :, :3].astype(np.uint32), levels[:, :, 3:]
    return np.asarray((colour * alpha + opaque // 2) // opaque, levels.dtype)


def _to_8_bit(levels: NDArray[Any]) -> Pixels:
    if levels.dtype == np.uint8:
        return levels
    return ((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
