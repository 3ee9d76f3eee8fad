"""Photos of people, as files: read upright as 8-bit RGB whatever they are stored as, and written whole or not at all.

Pillow reads every header, so content decides and not the name. JPEG goes to libjpeg-turbo in strict mode, because
others return a damaged file's grey half without a word; 16-bit colour goes to OpenCV, because Pillow cuts it to 8 bits
without rounding.
"""

import io
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from shardgen.process import shortage
from trainer.errors import UsageError
from trainer.files import replacing
from trainer.pixels import Pixels

Plane = NDArray[np.uint8]  # H x W

# HEIC is listed although it cannot be decoded: a folder of phone photos must not look empty.
_EXTENSIONS = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe jfif png webp bmp tif tiff gif ppm pgm pnm avif heic heif".split()  # noqa: SIM905
)
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")  # no others: some start programs
_WRITTEN_AS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", "": "PNG"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 3},  # a third of the time of Pillow's default, and no larger on photos
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "quality": 20, "method": 1, "exact": True},  # exact: also what lies under transparency
}
_LARGEST_SIDE_PX = {"PNG": 2**31 - 1, "JPEG": 65_535, "WEBP": 16_383}
_MAX_PIXELS = 250_000_000  # a 200-megapixel phone photo passes
_MAX_FILE_BYTES = 2 << 30

_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_PLANAR, _TIFF_EXTRA_SAMPLES = 258, 262, 284, 338
_ICC_COLOUR_SPACE = slice(16, 20)  # of the profile's header, ICC.1 section 7.2


@dataclass(frozen=True)
class Photo:
    """An upright photo. `alpha` is 0 (transparent) to 255 and not multiplied into the colours; None if all is opaque.

    `was_grey`: the file has no colour in it, so that red, green and blue are equal everywhere. `icc_profile` says what
    the colours mean; it is carried along and not applied.
    """

    rgb: Pixels
    alpha: Plane | None = None
    was_grey: bool = False
    icc_profile: bytes | None = None


def is_photo_name(path: Path) -> bool:
    """Whether the extension is one that photos have, also one that is not written here."""
    return path.suffix.lower() in _EXTENSIONS


def list_photos(paths: Iterable[Path], leave_out: Path | None = None) -> list[Path]:
    """The files that are named, and all photos in the folders that are named, by their usual extensions; each once.

    Folders are searched to the bottom, in alphabetical order, without what is hidden (`.name`) and without the folder
    `leave_out`, if it lies inside of one: there the results go. UsageError when something is missing or there are none.
    """
    found: dict[Path, Path] = {}
    named = list(paths)
    for path in named:
        if not path.exists():
            raise UsageError(f"there is no {path}: name photos, or folders with photos")
        for photo in _walk(path, leave_out) if path.is_dir() else [path]:
            found.setdefault(photo.resolve(), photo)
    if not found:
        folders = ", ".join(str(path) for path in named) or "no folder given"
        raise UsageError(f"no photos found ({folders}). Photos are files that end in {' '.join(sorted(_EXTENSIONS))}")
    return list(found.values())


def _walk(root: Path, leave_out: Path | None) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise UsageError(f"cannot list {error.filename}: {error.strerror}") from error

    unwanted = leave_out.resolve() if leave_out else None
    entered: set[Path] = set()
    photos = []
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        resolved = Path(folder).resolve()
        # Links may lead into a circle. The root itself is searched even if the results go there.
        if resolved in entered or (resolved == unwanted and Path(folder) != root):
            subfolders.clear()
            continue
        entered.add(resolved)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        visible = (name for name in sorted(files) if not name.startswith("."))
        photos += [Path(folder, name) for name in visible if is_photo_name(Path(name))]
    return sorted(photos)


def read_photo(path: Path) -> Photo:
    """The photo in a file. UsageError, naming the file and the reason, for whatever is not wholly an image.

    EXIF orientation is applied, 16 bits become 8 by rounding, palettes and CMYK become RGB, an animation gives its
    first frame.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"cannot read {path}: it is {'a folder' if path.is_dir() else 'no regular file'}")
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UsageError(f"cannot read {path}: it has more than {_MAX_FILE_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        if shortage(error):
            raise
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if not data:
        raise UsageError(f"{path} is an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _open(data)
            pixels = _decode(data, image)
            # Only now: Pillow turns TIFFs by itself while it loads them, and then says so.
            pixels = _turn_upright(pixels, _orientation(image))
    except _Unreadable as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    except Exception as error:  # decoders raise all sorts of things on damaged data
        if reason := shortage(error):
            raise UsageError(f"cannot read {path}: {reason}") from error
        raise UsageError(f"{path} is damaged or truncated: {str(error).strip() or type(error).__name__}") from error
    rgb = np.ascontiguousarray(pixels[:, :, :3])
    alpha = np.ascontiguousarray(pixels[:, :, 3]) if pixels.shape[2] == 4 else None
    profile = image.info.get("icc_profile")
    return Photo(rgb, alpha, _is_grey(rgb), profile if isinstance(profile, bytes) else None)


class _Unreadable(Exception):
    """A reason that is no damage."""


def _open(data: bytes) -> Image.Image:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is checked below, with a message
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:
        if shortage(error):
            raise
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1"):
            raise _Unreadable("HEIC is not supported; convert it to JPEG or PNG first") from error
        raise _Unreadable("it is no image, or its beginning is damaged") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if image.width * image.height > _MAX_PIXELS:
        raise _Unreadable(f"it has {image.width} x {image.height} px; the limit is {_MAX_PIXELS:,} px")
    return image


def _decode(data: bytes, image: Image.Image) -> Pixels:
    """H x W x 3 or, with alpha, H x W x 4."""
    if image.format in ("JPEG", "MPO") and simplejpeg.decode_jpeg_header(data)[2] in ("YCbCr", "Gray", "RGB"):
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"), np.uint8)
    image.load()  # raises on a truncated file
    if _bits(data, image) == 16 and image.mode in ("RGB", "RGBA", "LA"):
        return _decode_16_bits(data, image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        grey = _to_8_bits(np.asarray(image).astype(np.uint16))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise _Unreadable("it has 32 bits per channel; save it with 8 or 16")
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _bits(data: bytes, image: Image.Image) -> int:
    if image.format == "PNG":
        return data[24]  # IHDR's bit depth
    if image.format == "TIFF":
        bits = image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def _decode_16_bits(data: bytes, image: Image.Image) -> Pixels:
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        premultiplied = 1 in tags.get(_TIFF_EXTRA_SAMPLES, ())
        if tags.get(_TIFF_PHOTOMETRIC) not in (1, 2) or tags.get(_TIFF_PLANAR, 1) != 1 or premultiplied:
            raise _Unreadable("it is a 16-bit TIFF of an unusual layout; save it as interleaved RGB, or as PNG")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise ValueError("damaged 16-bit image")
    order = [2, 1, 0, 3][: pixels.shape[2]]  # OpenCV has blue first
    return _to_8_bits(pixels[:, :, order].astype(np.uint16))


def _to_8_bits(levels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return ((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing; the pixels are good
        return 1
    return value if value in range(1, 9) else 1


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the EXIF orientation 1-8 (CIPA DC-008): which edge of the scene the first row and column are."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = np.flip(pixels, 0)
    if orientation in (2, 3, 6, 7):
        pixels = np.flip(pixels, 1)
    return pixels


def _is_grey(rgb: Pixels) -> bool:
    few = rgb[::16, ::16]  # nearly every colour photo is known by these
    return all(bool((part[:, :, 1:] == part[:, :, :1]).all()) for part in (few, rgb))


def check_writable(path: Path, height: int, width: int, has_alpha: bool) -> None:
    """UsageError when no photo of that size, in px, can be written as what the path's extension says."""
    if is_photo_name(path) and path.suffix.lower() not in _WRITTEN_AS:
        raise UsageError(f"cannot write {path}: photos are written as .png, .jpg or .webp")
    image_format = _format(path)
    if max(height, width) > _LARGEST_SIDE_PX[image_format]:
        limit = f"{_LARGEST_SIDE_PX[image_format]:,}"
        raise UsageError(
            f"cannot write {path}: {width} x {height} px, and {image_format} ends at {limit}; write a .png"
        )
    if has_alpha and image_format == "JPEG":
        raise UsageError(f"cannot write {path}: it has transparency, which JPEG has not; write a .png or .webp")


def write_photo(path: Path, photo: Photo) -> None:
    """Write PNG, JPEG (quality 95, full colour resolution) or lossless WebP by the path's extension, PNG by default.

    Whole or not at all. Grey photos are written as grey, alpha is kept, and the profile where it fits what is written.
    UsageError as `check_writable`; RunError when the disk refuses.
    """
    check_writable(path, photo.rgb.shape[0], photo.rgb.shape[1], photo.alpha is not None)
    image_format = _format(path)
    grey = photo.was_grey and image_format != "WEBP"  # which has only colours
    colours = photo.rgb[:, :, :1] if grey else photo.rgb
    pixels = colours if photo.alpha is None else np.dstack([colours, photo.alpha])
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    options = dict(_OPTIONS[image_format])
    if photo.icc_profile and photo.icc_profile[_ICC_COLOUR_SPACE] == (b"GRAY" if grey else b"RGB "):
        options["icc_profile"] = photo.icc_profile
    with replacing(path) as temporary:
        image.save(temporary, image_format, **options)


def _format(path: Path) -> str:
    return _WRITTEN_AS.get(path.suffix.lower(), "PNG")


def opencv_cubic_up(image: Pixels, scale: int) -> Pixels:
    """Enlarge H x W (x 3) uint8 with OpenCV's kernel, a = -0.75: what shardgen makes `up` with by default."""
    size = (image.shape[1] * scale, image.shape[0] * scale)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
