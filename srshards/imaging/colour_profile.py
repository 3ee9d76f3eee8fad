"""Convert photos with an embedded ICC profile to sRGB, by littlecms through Pillow.

Relative colorimetric with black point compensation: colours that sRGB can express are kept, others are clipped, and the
darkest black becomes black. Profiles defined by a matrix and tone curves, those of nearly all photos, give the same
pixels with every rendering intent.
"""

import functools
import io

import cv2
import numpy as np
from PIL import Image, ImageCms, features

from srshards.errors import PhotoError
from srshards.imaging.pixels import Pixels
from srshards.process.shortages import shortage

# Profiles of sRGB differ in rounding, in the number of points of the tone curve and in how white is adapted. Those in
# circulation move no level by more than 1; the profile nearest to sRGB that is not meant to be it (sRGB's primaries
# with a gamma of 2.1) moves some by 6.
_MAX_SRGB_DEVIATION = 2

_MAX_PROFILE_BYTES = 16 << 20  # also bounds the memory of cached profiles; those of printers have 1 to 3 MB
_CACHED_PROFILES = 16
_BAND_PX = 1 << 15  # so that Pillow's copies fit into the CPU cache: 20 ms per megapixel; with 2^20 px, 34 ms
_MAX_NAME_CHARS = 100

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # Pillow's, by colour space
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.HIGHRESPRECALC
_PROBE_LEVELS = np.linspace(0, 255, 18).round().astype(np.uint8)


class ProfileError(ValueError):
    """The profile cannot be applied to the image. The message says why."""


class SrgbConversion:
    """Converts 8-bit images that have a certain profile to sRGB. `name` is the profile's description."""

    def __init__(self, name: str, colour_space: str, transform: ImageCms.ImageCmsTransform) -> None:
        self.name = name
        self.colour_space = colour_space
        self._transform = transform
        self._table = self._transformed(_greys()[:, :, :1]) if colour_space == "GRAY" else None

    def apply(self, levels: Pixels) -> Pixels:
        """Convert H x W x 3 RGB, or H x W x 4 CMYK where 255 is full ink, to H x W x 3 sRGB.

        Grey is given as three equal channels.
        """
        if self._table is not None:
            return np.asarray(cv2.LUT(levels, self._table), np.uint8)
        height, width = levels.shape[:2]
        converted = np.empty((height, width, 3), np.uint8)
        band = max(1, _BAND_PX // width)
        for top in range(0, height, band):
            converted[top : top + band] = self._transformed(levels[top : top + band])
        return converted

    def is_identity(self) -> bool:
        """Return whether the profile is one of sRGB, so that converting would at most add rounding errors."""
        probes = _greys() if self.colour_space == "GRAY" else _greys_and_colours()
        return bool(np.abs(self.apply(probes).astype(int) - probes).max() <= _MAX_SRGB_DEVIATION)

    def _transformed(self, levels: Pixels) -> Pixels:
        height, width = levels.shape[:2]
        mode = _MODES[self.colour_space]
        image = Image.frombuffer(mode, (width, height), np.ascontiguousarray(levels), "raw", mode, 0, 1)
        return np.asarray(ImageCms.applyTransform(image, self._transform))


def srgb_conversion(profile: bytes, colour_space: str) -> SrgbConversion | None:
    """Return the conversion to sRGB of an image with the embedded profile; None if the profile is one of sRGB.

    `colour_space` is the image's: RGB, GRAY or CMYK. A grey image may have a profile for RGB. ProfileError when the
    profile is damaged or meant for another colour space; PhotoError when Pillow lacks littlecms.
    """
    if not features.check("littlecms2"):
        raise PhotoError("has a colour profile, but this build of Pillow has no littlecms; install a wheel from PyPI")
    if len(profile) > _MAX_PROFILE_BYTES:
        raise ProfileError(f"colour profile of {len(profile):,} bytes, the limit is {_MAX_PROFILE_BYTES:,} bytes")
    expected, conversion = _loaded(profile)
    if expected != colour_space and (expected, colour_space) != ("RGB", "GRAY"):
        raise ProfileError(f"colour profile for {expected}, but the image is {colour_space}")
    return conversion


@functools.lru_cache(maxsize=_CACHED_PROFILES)
def _loaded(data: bytes) -> tuple[str, SrgbConversion | None]:
    """Return the colour space of a profile and the conversion, None for sRGB."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        colour_space = profile.profile.xcolor_space.strip()
        if not colour_space.isalnum():  # four characters from the file, which reach terminals
            raise ProfileError("damaged colour profile")
        if colour_space not in _MODES:
            return colour_space, None
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            _MODES[colour_space],
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            _FLAGS,
        )
    except (OSError, ValueError, ImageCms.PyCMSError) as error:
        if shortage(error) or isinstance(error, ProfileError):
            raise
        raise ProfileError("damaged colour profile") from error
    conversion = SrgbConversion(_name(profile), colour_space, transform)
    is_srgb = colour_space != "CMYK" and conversion.is_identity()
    return colour_space, None if is_srgb else conversion


def _name(profile: ImageCms.ImageCmsProfile) -> str:
    """Return the profile's description, shortened and without control characters."""
    try:
        text = profile.profile.profile_description or ""
    except ValueError:  # damaged text; the rest of the profile is valid
        text = ""
    name = "".join(char for char in " ".join(text.split()) if char.isprintable())
    return name[:_MAX_NAME_CHARS] or "unnamed"


def _greys() -> Pixels:
    """Return all greys, 1 x 256 x 3."""
    return np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)


def _greys_and_colours() -> Pixels:
    """Return all greys and a grid of colours, 1 x N x 3."""
    grid = np.stack(np.meshgrid(*[_PROBE_LEVELS] * 3), axis=-1).reshape(1, -1, 3)
    return np.concatenate([_greys(), grid], axis=1)
