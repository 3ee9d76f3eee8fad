"""A photo's bytes become upright 8-bit RGB pixels, or a PhotoError that says why not.

Pillow reads every header (content decides, not the name). JPEG goes to libjpeg-turbo through simplejpeg, strictly: a
file that ends early or is damaged is refused, where OpenCV would return it half grey without a word. Everything else is
decoded by Pillow, which refuses truncated files too; OpenCV only lends its eyes for 16-bit colour, which Pillow cuts
down to 8 bits without rounding.

Decided here: alpha is composited over black (what hides under transparent pixels is often garbage), an animation gives
its first frame, 16 bits become 8 by rounding, embedded colour profiles are not applied.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from shardgen.errors import PhotoError

Pixels = NDArray[np.uint8]  # H x W x 3, RGB, C order

# A 200-megapixel phone photo passes; what is larger is refused by its header, before memory is spent on it.
MAX_PIXELS = 250_000_000
Image.MAX_IMAGE_PIXELS = None  # the limit above is checked by hand, with a message

_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_JPEG_FORMATS = ("JPEG", "MPO")
_JPEG_REDUCTIONS = (8, 4, 2)  # those that libjpeg-turbo decodes faster than the whole


def read_bytes(path: Path) -> bytes:
    """The file's content. PhotoError when it cannot be read or is empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror}") from error
    if not data:
        raise PhotoError("empty file")
    return data


def upright_size(data: bytes) -> tuple[int, int]:
    """(height, width) in px as a viewer shows the photo, from the header alone. PhotoError as `decode`."""
    with _open(data) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def decode(data: bytes, min_side: int | None = None) -> tuple[Pixels, tuple[int, int]]:
    """The photo's pixels, and its true (height, width).

    With `min_side`, a JPEG may come out at 1/2, 1/4 or 1/8 of its size as long as its shorter side keeps at least
    `min_side` px. Raises PhotoError for anything that is not wholly an image.
    """
    with _open(data) as image:
        if image.width * image.height > MAX_PIXELS:
            raise PhotoError(f"too large: {image.width} x {image.height} px, the limit is {MAX_PIXELS:,} px")
        try:
            if image.format in _JPEG_FORMATS:
                pixels, orientation = _decode_jpeg(data, image, min_side), _orientation(image)
            else:
                # Pillow turns TIFFs by itself while it loads them, so their orientation is asked for afterwards.
                pixels, orientation = _decode_other(data, image), _orientation(image)
        except PhotoError:
            raise
        except Exception as error:  # decoders raise all sorts of things on damaged data; none may end the run
            raise PhotoError(_reason(image.format, error)) from error
        size = (image.width, image.height) if orientation >= 5 else (image.height, image.width)
    return _turn_upright(pixels, orientation), size


def _open(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
            return Image.open(io.BytesIO(data))
    except Exception as error:
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1"):
            raise PhotoError("HEIC is not supported: convert it to JPEG or PNG first") from error
        raise PhotoError("not an image, or its header is damaged") from error


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing; the pixels are still good
        return 1
    return value if value in range(1, 9) else 1


def _reason(image_format: str | None, error: Exception) -> str:
    text = str(error).lower()
    if any(sign in text for sign in ("truncated", "premature", "unexpected end", "not enough", "incomplete")):
        return f"truncated {image_format}"
    if isinstance(error, MemoryError):
        return f"not enough memory to decode this {image_format}"
    return f"damaged {image_format} ({str(error).strip() or type(error).__name__})"


def _decode_jpeg(data: bytes, image: Image.Image, min_side: int | None) -> Pixels:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    if colorspace not in ("YCbCr", "Gray", "RGB"):  # CMYK, with Adobe's inversions
        return _decode_other(data, image)
    reduction = 1
    if min_side:
        reduction = next((r for r in _JPEG_REDUCTIONS if -(-min(height, width) // r) >= min_side), 1)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-height // reduction), min_width=-(-width // reduction), min_factor=reduction
        )
        return pixels
    except ValueError as error:
        if "extraneous bytes" in str(error):  # padding that some cameras write; the picture is whole
            return _decode_other(data, image)
        raise


def _decode_other(data: bytes, image: Image.Image) -> Pixels:
    bits_16_colour = image.mode in ("RGB", "RGBA") and _bits_per_channel(data, image) == 16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.load()  # raises on a truncated file
    if bits_16_colour:
        return _decode_16_bit_colour(data)
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        return _grey_to_rgb(_to_8_bit(np.asarray(image).astype(np.int64).clip(0, 65535).astype(np.uint16)))
    if image.mode == "F":
        raise PhotoError("32-bit floating point: expected 8 or 16 bits per channel")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _bits_per_channel(data: bytes, image: Image.Image) -> int:
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        bits = image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def _decode_16_bit_colour(data: bytes) -> Pixels:
    pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise PhotoError("damaged 16-bit image")
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:].astype(np.uint32)
        pixels = ((pixels[:, :, :3] * alpha + 32767) // 65535).astype(np.uint16)
    return np.ascontiguousarray(_to_8_bit(pixels[:, :, ::-1]))


def _to_8_bit(pixels: NDArray[np.uint16]) -> Pixels:
    return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _grey_to_rgb(grey: Pixels) -> Pixels:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the EXIF orientation (1-8), as CIPA DC-008 defines it."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
