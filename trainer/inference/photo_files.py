"""Find, read and write photo files: any format to upright 8-bit RGB, and atomic writes.

Photos are decoded as in shardgen, so that inference and training see the same pixels.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from srshards.errors import PhotoError, UsageError
from srshards.imaging.photo import DecodedPhoto, decode_photo, read_bytes, upright_size_of_file
from srshards.imaging.provenance import exif_mark
from srshards.process.shortages import shortage
from srshards.storage.files import replacing, writing

# HEIC cannot be decoded but is listed, so that a folder of phone photos yields errors instead of looking empty.
_EXTENSIONS = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe jfif png webp bmp tif tiff gif ppm pgm pnm avif heic heif".split()  # noqa: SIM905
)
_WRITTEN_AS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", "": "PNG"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 3},  # a third of the time of Pillow's default, and no larger on photos
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "quality": 20, "method": 1, "exact": True},  # exact: keep colours of transparent pixels
}
_LARGEST_SIDE_PX = {"PNG": 2**31 - 1, "JPEG": 65_535, "WEBP": 16_383}
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 4096  # limits of common file systems and of Linux
_ICC_COLOUR_SPACE = slice(16, 20)  # in the profile header, ICC.1 section 7.2


def is_photo_name(path: Path) -> bool:
    """Return whether the extension is a photo's, including formats that cannot be written."""
    return path.suffix.lower() in _EXTENSIONS


def list_photos(paths: Iterable[Path], leave_out: Path | None = None) -> list[Path]:
    """Return the given files, and all photos in the given folders by extension, without duplicates.

    Folders are searched recursively in alphabetical order, excluding hidden entries (`.name`) and the output folder
    `leave_out`. UsageError if a path does not exist or no photos are found.
    """
    found: dict[Path, Path] = {}
    given = list(paths)
    for path in given:
        if not path.exists():
            raise UsageError(f"no such file or folder: {path}; pass photos or folders of photos")
        for photo in _walk(path, leave_out) if path.is_dir() else [path]:
            found.setdefault(photo.resolve(), photo)
    if not found:
        where = f"in {', '.join(map(str, given))}" if given else "given"
        raise UsageError(f"no photos {where}: expected files ending in {' '.join(sorted(_EXTENSIONS))}")
    return list(found.values())


def _walk(root: Path, leave_out: Path | None) -> list[Path]:
    def refuse(error: OSError) -> None:
        if error.errno == errno.ENAMETOOLONG:  # listed as a photo, it becomes one failure among the results
            photos.append(Path(error.filename))
            return
        raise UsageError(f"cannot list {error.filename}: {error.strerror}; fix its permissions (chmod u+rx)") from error

    excluded = leave_out.resolve() if leave_out else None
    visited: set[Path] = set()
    photos = []
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        resolved = Path(folder).resolve()
        # Symbolic links may form a cycle. The root itself is searched even if it is the output folder.
        if resolved in visited or (resolved == excluded and Path(folder) != root):
            subfolders.clear()
            continue
        visited.add(resolved)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        visible = (name for name in sorted(files) if not name.startswith("."))
        photos += [Path(folder, name) for name in visible if is_photo_name(Path(name))]
    return sorted(photos)


def read_photo(path: Path) -> DecodedPhoto:
    """Read a photo. UsageError, with the path and the reason, if it is not a complete image.

    EXIF orientation is applied, 16 bits are rounded to 8, palettes and CMYK are converted to RGB, and of an animation
    the first frame is returned.
    """
    try:
        with _reasons(path):
            return decode_photo(read_bytes(path), keep_alpha=True)
    except PhotoError as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def photo_size(path: Path) -> tuple[int, int]:
    """Return the upright (height, width) of a photo in px, from its header. PhotoError if it has none."""
    with _reasons(path):
        return upright_size_of_file(path)


@contextmanager
def _reasons(path: Path) -> Iterator[None]:
    """Raise PhotoError for whatever makes a photo unreadable, with nothing but the reason."""
    try:
        if path.exists() and not path.is_file():
            raise PhotoError(f"it is {'a folder' if path.is_dir() else 'not a regular file'}")
        yield
    except PhotoError as error:
        raise PhotoError(str(error).removeprefix("cannot be read: ")) from error
    except OSError as error:
        if shortage(error):
            raise
        raise PhotoError(error.strerror) from error


def check_writable(path: Path, height: int, width: int, has_alpha: bool) -> None:
    """Raise UsageError if the format that the extension selects cannot hold a photo of this size in px."""
    if is_photo_name(path) and path.suffix.lower() not in _WRITTEN_AS:
        raise UsageError(f"cannot write {path}: expected a name ending in .png, .jpg or .webp")
    if len(os.fsencode(path.name)) > _MAX_NAME_BYTES or len(os.fsencode(path)) >= _MAX_PATH_BYTES:
        raise UsageError(f"cannot write {path}: the name is too long")
    image_format = _format(path)
    if max(height, width) > _LARGEST_SIDE_PX[image_format]:
        limit = f"{_LARGEST_SIDE_PX[image_format]:,}"
        raise UsageError(
            f"cannot write {path}: {width} x {height} px exceeds {image_format}'s limit of {limit} px; write a .png"
        )
    if has_alpha and image_format == "JPEG":
        raise UsageError(f"cannot write {path}: JPEG does not support transparency; write a .png or .webp")


def write_photo(path: Path, photo: DecodedPhoto) -> None:
    """Write PNG, JPEG (quality 95, 4:4:4) or lossless WebP by the path's extension, PNG by default. Atomic.

    Grayscale and alpha are kept, and the ICC profile if it matches the written colour space. UsageError as
    in `check_writable`; RunError if writing fails.
    """
    check_writable(path, photo.rgb.shape[0], photo.rgb.shape[1], photo.alpha is not None)
    image_format = _format(path)
    grey = photo.is_grey and image_format != "WEBP"  # WebP has no grayscale
    colours = photo.rgb[:, :, :1] if grey else photo.rgb
    pixels = colours if photo.alpha is None else np.dstack([colours, photo.alpha])
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    options = {**_OPTIONS[image_format], "exif": exif_mark("trainer upscale")}
    if photo.icc_profile and photo.icc_profile[_ICC_COLOUR_SPACE] == (b"GRAY" if grey else b"RGB "):
        options["icc_profile"] = photo.icc_profile
    with writing(path), replacing(path) as temporary:
        image.save(temporary, image_format, **options)


def _format(path: Path) -> str:
    return _WRITTEN_AS.get(path.suffix.lower(), "PNG")
