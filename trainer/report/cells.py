"""Split a validation preview into the images it was assembled from."""

import io
import json
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from srshards.imaging.contact_sheet import GRID_TEXT
from srshards.imaging.pixels import Pixels

_MAX_CHARS = 500
_TITLES = ["bicubic", "network", "HR"]
_DAMAGE = (OSError, SyntaxError, ValueError, KeyError, TypeError, RecursionError, struct.error, zlib.error)


class PreviewError(Exception):
    """The file is not a readable preview."""


class Cells(NamedTuple):
    """A row of a preview: three H x W x 3 uint8 images of equal size, the sample's name and a caption with metrics."""

    name: str
    caption: str
    bicubic: Pixels
    network: Pixels
    hr: Pixels


class Preview(NamedTuple):
    """A preview image. `rows` is None if the file has no layout of its cells, as in older versions."""

    image: Pixels
    rows: list[Cells] | None


def read_preview(content: bytes) -> Preview:
    """Decode a preview from the bytes of a PNG file. PreviewError if it is damaged."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as file:
            image = np.asarray(file.convert("RGB"))
            text = getattr(file, "text", {}).get(GRID_TEXT)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise PreviewError(str(error)) from error
    if text is None:
        return Preview(image, None)
    try:
        grid = json.loads(text)
        if grid["titles"] != _TITLES:
            return Preview(image, None)
        rows = [_crop(image, **row) for row in grid["rows"]]
        if not rows:
            raise ValueError("no images")
        return Preview(image, rows)
    except _DAMAGE as error:
        raise PreviewError("invalid layout") from error


def _crop(preview: Pixels, cells: list[tuple[int, int, int, int]], caption: str, aside: str) -> Cells:
    height, width = preview.shape[:2]
    if len({tuple(size) for _, _, *size in cells}) != 1:
        raise ValueError("images of a row differ in size")
    images = []
    for left, top, cell_width, cell_height in cells:
        if not (0 <= left < left + cell_width <= width and 0 <= top < top + cell_height <= height):
            raise ValueError("a cell exceeds the preview")
        images.append(np.ascontiguousarray(preview[top : top + cell_height, left : left + cell_width]))
    bicubic, network, hr = images
    return Cells(str(aside)[:_MAX_CHARS], str(caption)[:_MAX_CHARS], bicubic, network, hr)
