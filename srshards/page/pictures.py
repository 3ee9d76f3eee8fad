"""Images embedded in a page as data URIs."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from srshards.imaging.pixels import Pixels

PLACEHOLDER = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACADs="  # for an image that a script inserts
_THUMBNAIL_QUALITY = 80
_PHOTO_QUALITY = 92


def lossless_uri(pixels: Pixels) -> str:
    """Return a lossless data URI of H x W x 3 uint8 RGB."""
    # A tenth of the time of the maximum effort, for 1 % more bytes.
    return _uri(Image.fromarray(pixels), lossless=True, quality=50, method=2)


def photo_uri(pixels: Pixels) -> str:
    """Return a data URI of H x W x 3 uint8 RGB that looks the same when magnified, in a third of the lossless bytes.

    JPEG, because WebP with losses always halves the resolution of the colours.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_PHOTO_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def thumbnail_uri(pixels: Pixels, edge: int) -> str:
    """Return a data URI of a slightly lossy thumbnail, at most `edge` px on its longer side, of H x W x 3 uint8 RGB."""
    image = Image.fromarray(pixels)
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return _uri(image, quality=_THUMBNAIL_QUALITY, method=4)


def _uri(image: Image.Image, **options: int | bool) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class Layer:
    """One image of a comparison. All layers show the same content, possibly at different sizes."""

    name: str  # "HR", "LR", "bicubic"
    uri: str


@dataclass(frozen=True)
class Comparison:
    """Two or more images to compare with sliders, and to magnify.

    `width` and `height` are those of the largest layer in px; the zoom factor is relative to its pixels.
    """

    id: str  # unique in the page, without spaces
    title: str
    width: int
    height: int
    layers: Sequence[Layer]
    caption: str = ""  # one line, below the images
    facts: Sequence[tuple[str, str]] = field(default=())  # shown with the magnified images
    full_title: str = ""  # shown on hover if the title is a short form of it

    @property
    def num_bytes(self) -> int:
        """Size of its images in the page."""
        return sum(len(layer.uri) for layer in self.layers)
