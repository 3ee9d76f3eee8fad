"""A photo's bytes become upright 8-bit RGB pixels, or a PhotoError that says why not.

Pillow reads every header (content decides, not the name), of the formats below and no others: some that it knows start
programs or take any text for a picture. JPEG goes to libjpeg-turbo through simplejpeg, strictly: a file that ends early
or has a hole is refused, where OpenCV would return it half grey without a word. Everything else is decoded by Pillow,
which refuses truncated files too; OpenCV only lends its eyes for 16-bit colour, which Pillow cuts down to 8 bits
without rounding.

Decided here: alpha is composited over black (what hides under transparent pixels is often garbage), an animation gives
its first frame, 16 bits become 8 by rounding, embedded colour profiles are not applied.
"""

import contextlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from shardgen.errors import PhotoError
from shardgen.pixels import Pixels
from shardgen.process import shortage

# A 200-megapixel phone photo passes; what is larger is refused by its header, before memory is spent on it.
MAX_PIXELS = 250_000_000
Image.MAX_IMAGE_PIXELS = None  # the limit above is checked by hand, with a message

MAX_FILE_BYTES = 2 << 30

_EXIF_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS_PER_SAMPLE = 256, 257, 258
_TIFF_PHOTOMETRIC, _TIFF_BLACK_IS_ZERO, _TIFF_RGB = 262, 1, 2
_TIFF_PLANAR, _TIFF_INTERLEAVED = 284, 1
_TIFF_EXTRA_SAMPLES, _TIFF_PREMULTIPLIED = 338, 1
_JPEG_FORMATS = ("JPEG", "MPO")  # the latter holds several pictures; the first is a plain JPEG
# JPEG 2000 is not among them: its decoder takes a truncated file for a whole one.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")
_JPEG_REDUCTIONS = (8, 4, 2)  # those that libjpeg-turbo decodes faster than the whole


def announce(path: Path) -> None:
    """Ask the system to read the file into the page cache soon, without waiting for it; where it cannot, do nothing."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(fd)


def read_bytes(path: Path) -> bytes:
    """The file's content. PhotoError when it cannot be read, is empty, or is larger than any photo.

    OSError when this process has too many files open, which is not the photo's fault.
    """
    try:
        with open(path, "rb") as file:
            check_size(os.fstat(file.fileno()).st_size)
            data = file.read()
    except OSError as error:
        if shortage(error):
            raise
        raise PhotoError(f"cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise PhotoError("not enough memory to read it") from error
    if not data:
        raise PhotoError("empty file")
    return data


def check_size(num_bytes: int) -> None:
    """PhotoError when a file is larger than any photo."""
    if num_bytes > MAX_FILE_BYTES:
        raise PhotoError(f"too large: {num_bytes:,} bytes, the limit is {MAX_FILE_BYTES:,} bytes")


def upright_size(data: bytes) -> tuple[int, int]:
    """(height, width) in px as a viewer shows the photo, from the header alone. PhotoError as `decode`."""
    with _open(data) as image:
        height, width = _stored_size(image)
        # Pillow would decode a whole PNG to look for EXIF behind the pixels.
        late = image.format == "PNG" and "exif" not in image.info
        return (width, height) if not late and _orientation(image) >= 5 else (height, width)


def decode(data: bytes, min_side: int | None = None) -> tuple[Pixels, tuple[int, int]]:
    """The photo's pixels, and its true (height, width).

    With `min_side`, a JPEG may come out at 1/2, 1/4 or 1/8 of its size as long as its shorter side keeps at least
    `min_side` px. Raises PhotoError for anything that is not wholly an image.
    """
    with _open(data) as image:
        height, width = _stored_size(image)
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
    pixels = _turn_upright(pixels, orientation)
    if image.format in _JPEG_FORMATS:  # it may have come out smaller than it is
        return pixels, (width, height) if orientation >= 5 else (height, width)
    return pixels, (pixels.shape[0], pixels.shape[1])


def _open(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:
        if isinstance(error, MemoryError):
            raise PhotoError("not enough memory to open it") from error
        if shortage(error):  # Pillow loads what reads a format when it is needed
            raise
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1"):
            raise PhotoError("HEIC is not supported: convert it to JPEG or PNG first") from error
        raise PhotoError("not an image, or its header is damaged") from error
    # Elsewhere odd metadata does no harm, but a TIFF's tags say how its pixels are to be read.
    if image.format == "TIFF" and any("orrupt" in str(r.message) or "runcated" in str(r.message) for r in remarks):
        raise PhotoError("truncated TIFF")
    height, width = _stored_size(image)
    if width * height > MAX_PIXELS:
        raise PhotoError(f"too large: {width} x {height} px, the limit is {MAX_PIXELS:,} px")
    return image


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) before the orientation is applied, which some versions of Pillow do for a TIFF while opening."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return int(tags[_TIFF_HEIGHT]), int(tags[_TIFF_WIDTH])
    return image.height, image.width


def _orientation(image: Image.Image) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, "RGB", min_height=-(-height // reduction), min_width=-(-width // reduction), min_factor=reduction
    )
    return pixels


def _decode_other(data: bytes, image: Image.Image) -> Pixels:
    bits_16 = _bits_per_channel(data, image) == 16
    bits_16_colour = bits_16 and image.mode in ("RGB", "RGBA")
    if bits_16 and image.format == "TIFF":
        _refuse_odd_layout(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.load()  # raises on a truncated file
    if bits_16_colour:
        return _decode_16_bit_colour(data)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _grey_to_rgb(_to_8_bit(np.asarray(image).astype(np.uint16)))
    if image.mode in ("I", "F"):
        kind = "floating point" if image.mode == "F" else "integers"
        raise PhotoError(f"32-bit {kind}: expected 8 or 16 bits per channel")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _bits_per_channel(data: bytes, image: Image.Image) -> int:
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        bits = image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def _refuse_odd_layout(image: Image.Image) -> None:
    """PhotoError for a 16-bit TIFF that is not plainly interleaved RGB or black-is-zero grey: decoders get it wrong."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    plain = tags.get(_TIFF_PHOTOMETRIC) in (_TIFF_BLACK_IS_ZERO, _TIFF_RGB)
    plain = plain and _TIFF_PREMULTIPLIED not in tags.get(_TIFF_EXTRA_SAMPLES, ())
    if not plain or tags.get(_TIFF_PLANAR, _TIFF_INTERLEAVED) != _TIFF_INTERLEAVED:
        raise PhotoError("16-bit TIFF of an unusual layout: save it as interleaved RGB or as PNG")


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
