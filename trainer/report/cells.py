"""Previews of validations, cut into the images that they were put together from."""

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
    """The file holds no picture."""


class Cells(NamedTuple):
    """A row of a preview: three images of one size, H x W x 3 uint8, what they are of, and their figures."""

    name: str
    caption: str
    bicubic: Pixels
    network: Pixels
    hr: Pixels


class Preview(NamedTuple):
    """`rows` is None where the file does not say where its cells are, as those of older versions."""

    whole: Pixels
    rows: list[Cells] | None


def read_preview(content: bytes) -> Preview:
    """What a PNG file holds. PreviewError when it is damaged."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            whole = np.asarray(picture.convert("RGB"))
            text = getattr(picture, "text", {}).get(GRID_TEXT)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise PreviewError(str(error)) from error
    if text is None:
        return Preview(whole, None)
    try:
        grid = json.loads(text)
        if grid["titles"] != _TITLES:
            return Preview(whole, None)
        rows = [_cut(whole, **row) for row in grid["rows"]]
        if not rows:
            raise ValueError("no images")
        return Preview(whole, rows)
    except _DAMAGE as error:
        raise PreviewError("it does not say where its images are") from error


def _cut(whole: Pixels, cells: list[tuple[int, int, int, int]], caption: str, aside: str) -> Cells:
    height, width = whole.shape[:2]
    if len({tuple(size) for _, _, *size in cells}) != 1:
        raise ValueError("images of one row differ in size")
    images = []
    for left, top, wide, high in cells:
        if not (0 <= left < left + wide <= width and 0 <= top < top + high <= height):
            raise ValueError("an image lies outside")
        images.append(np.ascontiguousarray(whole[top : top + high, left : left + wide]))
    bicubic, network, hr = images
    return Cells(str(aside)[:_MAX_CHARS], str(caption)[:_MAX_CHARS], bicubic, network, hr)
