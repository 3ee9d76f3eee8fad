"""Decode photos to upright 8-bit RGB, or raise a PhotoError that says why that is not possible.

Pillow detects the format from the header, not the file name. Only the formats below are enabled, because some of
Pillow's other formats run external programs or accept any text as an image. JPEG is decoded strictly by libjpeg-turbo
through simplejpeg: truncated or damaged files are rejected, where OpenCV would silently return a partly grey image.
Other formats are decoded by Pillow, which also rejects truncated files.

Only the first frame of an animation is used. Embedded colour profiles are applied on request.
"""

import io
import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from srshards.errors import PhotoError
from srshards.format import Address
from srshards.imaging import jpeg_file, png_file, tiff_file
from srshards.imaging.colour_profile import ProfileError, SrgbConversion, srgb_conversion
from srshards.imaging.pillow_limit import without_size_limit
from srshards.imaging.pixels import Pixels
from srshards.imaging.rgb8 import to_rgb8
from srshards.process.shortages import shortage
from srshards.storage.store import file_size
from srshards.storage.store import read_bytes as read_file

Plane = NDArray[np.uint8]  # H x W

# Admits photos of 200-megapixel phones. Larger ones are rejected after reading the header, before memory is allocated.
MAX_PIXELS = 250_000_000

MAX_FILE_BYTES = 2 << 30

_NOT_AN_IMAGE = "not an image, or its header is damaged"

_EXIF_ORIENTATION = 0x0112
_JPEG_FORMATS = ("JPEG", "MPO")  # MPO has several images; the first is an ordinary JPEG
# JPEG 2000 is excluded: its decoder accepts truncated files.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")


@dataclass(frozen=True)
class DecodedPhoto:
    """An upright photo, possibly decoded at 1/`reduction` of its size; its height and width are multiples of that.

    `rgb` is H x W x 3. `alpha` is H x W from 0 (transparent) to 255 and not premultiplied; it is None if the photo is
    opaque or was composited over black.

    `icc_profile` is the embedded colour profile that describes `rgb`, empty if it is damaged; None if there is none or
    if it was applied: then `converted_from` is its name and `rgb` is sRGB. `profile_problem` says why a profile could
    not be applied although that was requested; `rgb` is as without a profile.
    """

    rgb: Pixels
    alpha: Plane | None = None
    icc_profile: bytes | None = None
    reduction: int = 1
    converted_from: str | None = None
    profile_problem: str | None = None

    @property
    def true_size(self) -> tuple[int, int]:
        """(height, width) of the photo in px."""
        return self.rgb.shape[0] * self.reduction, self.rgb.shape[1] * self.reduction

    @property
    def is_grey(self) -> bool:
        """Whether red, green and blue are equal everywhere."""
        sparse = self.rgb[::16, ::16]  # enough to recognise nearly every colour photo
        return all(bool((part[:, :, 1:] == part[:, :, :1]).all()) for part in (sparse, self.rgb))


def read_bytes(address: Address, size: int = -1) -> bytes:
    """Read a photo's file. PhotoError when it cannot be read, is empty, or is too large.

    `size` is the size in bytes from a listing; with -1 it is looked up. StoreError when a store fails; OSError when
    this process has too many open files.
    """
    try:
        if size < 0:
            size = file_size(address) or 0
        if size > MAX_FILE_BYTES:
            raise PhotoError(f"too large: {size:,} bytes, the limit is {MAX_FILE_BYTES:,} bytes")
        data = read_file(address, size)
    except OSError as error:
        if shortage(error):
            raise
        raise PhotoError(f"cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise PhotoError("not enough memory to read it") from error
    if not data:
        raise PhotoError("empty file")
    return data


@without_size_limit()
def upright_size(data: bytes) -> tuple[int, int]:
    """Return the upright (height, width) in px, from the header alone. Raises PhotoError like `decode_photo`."""
    with _open(data) as image:
        return _upright_size(image)


@without_size_limit()
def upright_size_of_file(path: Path) -> tuple[int, int]:
    """Return the upright (height, width) in px of a regular file, normally without reading its pixels.

    PhotoError like `read_bytes` and `upright_size`.
    """
    with suppress(Exception), warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        with Image.open(path, formats=_FORMATS) as image:
            size = _upright_size(image)
        if not recorded and math.prod(size) <= MAX_PIXELS:
            return size
    return upright_size(read_bytes(path))  # an unusual or damaged file: with the workarounds and the reasons of `_open`


@without_size_limit()
def stored_pixels(path: Path) -> int:
    """Return the number of pixels of a photo's file, reading its header only; 0 if that is not possible."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not path.is_file():  # reading a pipe would wait
                return 0
            with Image.open(path, formats=_FORMATS) as image:
                return math.prod(_stored_size(image))
    except Exception:  # Pillow raises many kinds of exceptions on damaged data
        return 0


@without_size_limit()
def decode_photo(
    data: bytes,
    reduction: Callable[[int, int], int] = lambda height, width: 1,
    keep_alpha: bool = False,
    to_srgb: bool = False,
) -> DecodedPhoto:
    """Decode a photo. PhotoError for anything but a complete image of a supported format.

    `reduction` maps the upright height and width to the acceptable reduction of a JPEG: 1, 2, 4 or 8. The JPEG is
    decoded at that reduction or a smaller one that uses only the photo's own pixels. Photos with transparency are
    composited over black, because the colour of transparent pixels is often garbage, unless `keep_alpha` is set.
    With `to_srgb`, an embedded colour profile is applied (after the reduction); a profile of sRGB changes nothing.
    """
    conversion: SrgbConversion | None = None
    problem = None
    with _open(data) as image:
        profile = _embedded_profile(image, data)
        if to_srgb and profile is not None:
            try:
                conversion = srgb_conversion(profile, _colour_space(image))
            except ProfileError as error:
                problem = str(error)
        try:
            if image.format in _JPEG_FORMATS and jpeg_file.is_decodable(data):
                orientation = _orientation(image)
                height, width = _upright(_stored_size(image), orientation)
                pixels, reduced = jpeg_file.decode(data, reduction(height, width))
                pixels = conversion.apply(pixels) if conversion else pixels
            else:
                _load(image)
                # Pillow applies the orientation of TIFFs while loading them, so read it afterwards.
                orientation, reduced = _orientation(image), 1
                pixels = to_rgb8(image, data, keep_alpha, conversion)
        except PhotoError:
            raise
        except Exception as error:  # decoders raise many kinds of exceptions on damaged data; none may end the run
            raise PhotoError(_reason(image.format, error)) from error
    alpha = _rotate_upright(pixels[:, :, 3], orientation) if pixels.shape[2] == 4 else None
    rgb = _rotate_upright(pixels[:, :, :3], orientation)
    if conversion:
        return DecodedPhoto(rgb, alpha, None, reduced, converted_from=conversion.name)
    return DecodedPhoto(rgb, alpha, profile, reduced, profile_problem=problem)


def _open(data: bytes) -> Image.Image:
    if data.startswith(png_file.SIGNATURE):
        data = png_file.with_small_metadata(data)
    try:
        with warnings.catch_warnings(record=True) as recorded:
            warnings.simplefilter("always")
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1"):
            raise PhotoError("HEIC is not supported; convert it to JPEG or PNG first") from error
        if data.startswith(tiff_file.SIGNATURES):
            raise PhotoError(f"{_NOT_AN_IMAGE}, or a TIFF of an unusual kind; save it as PNG") from error
        raise PhotoError(_NOT_AN_IMAGE) from error
    except Exception as error:
        if shortage(error) and not isinstance(error, MemoryError):  # Pillow imports its plugins on demand
            raise
        raise PhotoError(_reason("header", error)) from error
    # Damaged metadata matters only in TIFF, whose tags determine how the pixels are read.
    if image.format == "TIFF" and any("orrupt" in str(r.message) or "runcated" in str(r.message) for r in recorded):
        raise PhotoError("truncated TIFF")
    height, width = _stored_size(image)
    if width * height > MAX_PIXELS:
        raise PhotoError(f"too large: {width} x {height} px, the limit is {MAX_PIXELS:,} px")
    return image


def _embedded_profile(image: Image.Image, data: bytes) -> bytes | None:
    """Return the ICC profile: None if there is none, empty if it is damaged."""
    if image.format == "PNG":
        return png_file.icc_profile(data)
    if "icc_profile" not in image.info:
        return None
    profile = image.info["icc_profile"]  # None or text if it is damaged
    return profile if isinstance(profile, bytes) else b""


def _colour_space(image: Image.Image) -> str:
    """Return the colour space that an embedded profile must have: RGB, GRAY or CMYK."""
    if image.mode == "CMYK":
        return "CMYK"
    return "GRAY" if image.mode in ("1", "L", "LA") or image.mode.startswith("I") else "RGB"


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) before the orientation is applied."""
    return tiff_file.stored_size(image) if image.format == "TIFF" else (image.height, image.width)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    # Pillow would decode the complete PNG to look for EXIF after the pixels.
    must_decode = image.format == "PNG" and "exif" not in image.info
    return _upright(_stored_size(image), 1 if must_decode else _orientation(image))


def _orientation(image: Image.Image) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # ignore damaged EXIF; the pixels are still valid
        return 1
    return value if value in range(1, 9) else 1


def _reason(image_format: str | None, error: Exception) -> str:
    text = str(error).lower()
    if any(sign in text for sign in ("truncated", "premature", "unexpected end", "not enough", "incomplete")):
        return f"truncated {image_format}"
    if isinstance(error, MemoryError):
        return f"not enough memory to decode this {image_format}"
    return f"damaged {image_format} ({str(error).strip() or type(error).__name__})"


def _load(image: Image.Image) -> None:
    if image.format == "TIFF":
        tiff_file.refuse_unsupported(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.load()  # raises on a truncated file


def _rotate_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo the EXIF orientation (1-8), as CIPA DC-008 defines it."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return size[::-1] if orientation >= 5 else size
