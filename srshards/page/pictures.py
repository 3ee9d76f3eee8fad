"""Images as a page carries them: inside its own text."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from srshards.imaging.pixels import Pixels

_THUMBNAIL_QUALITY = 80


def exact(pixels: Pixels) -> str:
    """A data URI from which every pixel comes back as it is. H x W x 3 uint8 RGB."""
    # A tenth of the time that the greatest effort takes, for 1 % more bytes.
    return _uri(Image.fromarray(pixels), lossless=True, quality=50, method=2)


def thumbnail(pixels: Pixels, edge: int) -> str:
    """A data URI of a smaller, slightly lossy copy, at most `edge` px on its longer side. H x W x 3 uint8 RGB."""
    image = Image.fromarray(pixels)
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return _uri(image, quality=_THUMBNAIL_QUALITY, method=4)


def _uri(image: Image.Image, **options: int | bool) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class Layer:
    """One of the images that lie on top of each other in a comparison. All show the same, maybe at different sizes."""

    name: str  # "HR", "LR", "bicubic"
    uri: str


@dataclass(frozen=True)
class Comparison:
    """Two or more images to be compared by sliding from one to the next, and magnified pixel by pixel.

    `width` and `height` are those of the largest layer in px: a step of the zoom shows each of its pixels as one.
    """

    id: str  # unique in the page, without spaces
    title: str
    width: int
    height: int
    layers: Sequence[Layer]
    caption: str = ""  # one line, below the images
    facts: Sequence[tuple[str, str]] = field(default=())  # shown on demand, beside the magnified images

    @property
    def num_bytes(self) -> int:
        """What its images take in the page."""
        return sum(len(layer.uri) for layer in self.layers)
