"""Photos as files: found in folders, read upright as 8-bit RGB whatever their kind, written whole or not at all.

The decoder is the generator's, so that a network sees a photo as it was trained on it.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from srshards.errors import PhotoError, UsageError
from srshards.imaging.photo import DecodedPhoto, decode_photo, read_bytes
from srshards.imaging.provenance import exif_mark
from srshards.process.shortages import shortage
from srshards.storage.files import replacing, writing

# HEIC is listed although it cannot be decoded: a folder of phone photos must not look empty.
_EXTENSIONS = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe jfif png webp bmp tif tiff gif ppm pgm pnm avif heic heif".split()  # noqa: SIM905
)
_WRITTEN_AS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", "": "PNG"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 3},  # a third of the time of Pillow's default, and no larger on photos
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "quality": 20, "method": 1, "exact": True},  # exact: also what lies under transparency
}
_LARGEST_SIDE_PX = {"PNG": 2**31 - 1, "JPEG": 65_535, "WEBP": 16_383}
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 4096  # of every file system in use; of Linux
_ICC_COLOUR_SPACE = slice(16, 20)  # of the profile's header, ICC.1 section 7.2


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
        if error.errno == errno.ENAMETOOLONG:  # what is in there cannot be read: one failure among the photos
            photos.append(Path(error.filename))
            return
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


def read_photo(path: Path) -> DecodedPhoto:
    """The photo in a file. UsageError, naming the file and the reason, for whatever is not wholly an image.

    EXIF orientation is applied, 16 bits become 8 by rounding, palettes and CMYK become RGB, an animation gives its
    first frame.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"cannot read {path}: it is {'a folder' if path.is_dir() else 'no regular file'}")
        return decode_photo(read_bytes(path), keep_alpha=True)
    except PhotoError as error:
        raise UsageError(f"cannot read {path}: {str(error).removeprefix('cannot be read: ')}") from error
    except OSError as error:
        if shortage(error):
            raise
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def check_writable(path: Path, height: int, width: int, has_alpha: bool) -> None:
    """UsageError when no photo of that size, in px, can be written under that name, as what its extension says."""
    if is_photo_name(path) and path.suffix.lower() not in _WRITTEN_AS:
        raise UsageError(f"cannot write {path}: photos are written as .png, .jpg or .webp")
    if len(os.fsencode(path.name)) > _MAX_NAME_BYTES or len(os.fsencode(path)) >= _MAX_PATH_BYTES:
        raise UsageError(f"cannot write {path}: the name is too long")
    image_format = _format(path)
    if max(height, width) > _LARGEST_SIDE_PX[image_format]:
        limit = f"{_LARGEST_SIDE_PX[image_format]:,}"
        raise UsageError(
            f"cannot write {path}: {width} x {height} px, and {image_format} ends at {limit}; write a .png"
        )
    if has_alpha and image_format == "JPEG":
        raise UsageError(f"cannot write {path}: it has transparency, which JPEG has not; write a .png or .webp")


def write_photo(path: Path, photo: DecodedPhoto) -> None:
    """Write PNG, JPEG (quality 95, full colour resolution) or lossless WebP by the path's extension, PNG by default.

    Whole or not at all. Grey photos are written as grey, alpha is kept, and the profile where it fits what is written.
    UsageError as `check_writable`; RunError when the disk refuses.
    """
    check_writable(path, photo.rgb.shape[0], photo.rgb.shape[1], photo.alpha is not None)
    image_format = _format(path)
    grey = photo.is_grey and image_format != "WEBP"  # which has only colours
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
