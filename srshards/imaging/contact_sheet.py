"""Contact sheets: labelled images side by side at their original size, on a dark background."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from srshards.imaging.pixels import Pixels
from srshards.imaging.provenance import exif_mark
from srshards.storage.files import write_atomically, writing

GAP_PX = 8
BACKGROUND, TEXT, FAINT = (24, 26, 30), (236, 238, 242), (160, 166, 176)

_HEADER_PX = 30
_CAPTION_PX = 44
_CAPTION_MIDDLE_PX = 15  # below its row: closer to it than to the next row
_TEXT_PX = 14

_LAST_LATIN = 0x017F
# Pillow's built-in font has Latin letters only. These are system fonts of Linux, macOS and Windows for Chinese, and for
# most other scripts.
_CJK_FONTS = ("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "PingFang.ttc", "msyh.ttc")
_OTHER_FONTS = ("DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")
_UNASSIGNED = "\U0010ffff"  # drawn by a font like each character that it lacks

# Keyword of the PNG text chunk with the positions of the cells: see `save_png`.
GRID_TEXT = "sr-grid"

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Row(NamedTuple):
    """Images (H x W x 3 uint8) from left to right, the caption below them, and a fainter, right-aligned text."""

    cells: Sequence[Pixels]
    caption: str = ""
    aside: str = ""


def grid(rows: Sequence[Row | tuple[Sequence[Pixels], str]], titles: Sequence[str]) -> Image.Image:
    """Draw a contact sheet with a title above each column and a caption below each row. Cells are not scaled.

    Every row has a cell for each title. Cells may differ in size; each column is as wide as its widest cell. Text that
    is too long is shortened with an ellipsis, at the end or, for asides (often paths), at the start. `info[GRID_TEXT]`
    has the positions of the cells. ValueError when a row does not have one cell per title.
    """
    drawn = [Row(*row) for row in rows]
    if not drawn or not titles or any(len(row.cells) != len(titles) for row in drawn):
        raise ValueError(f"expected rows of {len(titles)} cells, got rows of {[len(row.cells) for row in drawn]}")
    widths = [max(row.cells[column].shape[1] for row in drawn) for column in range(len(titles))]
    heights = [max(cell.shape[0] for cell in row.cells) for row in drawn]
    lefts = [GAP_PX + sum(widths[:column]) + column * GAP_PX for column in range(len(titles))]
    width = lefts[-1] + widths[-1] + GAP_PX
    captions = [_CAPTION_PX if row.caption or row.aside else GAP_PX for row in drawn]
    last = _CAPTION_PX - 2 * _CAPTION_MIDDLE_PX if captions[-1] == _CAPTION_PX else 0  # no next row to separate
    picture = Image.new("RGB", (width, _HEADER_PX + sum(heights) + sum(captions) - last), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for left, title, max_width_px in zip(lefts, titles, widths, strict=True):
        write_line(draw, (left, _HEADER_PX // 2), title, FAINT, max_width_px=max_width_px)
    top = _HEADER_PX
    positions = []
    for row, height, below in zip(drawn, heights, captions, strict=True):
        boxes = [(left, top, cell.shape[1], cell.shape[0]) for left, cell in zip(lefts, row.cells, strict=True)]
        positions.append({"cells": boxes, "caption": row.caption, "aside": row.aside})
        for (left, *_), cell in zip(boxes, row.cells, strict=True):
            picture.paste(Image.fromarray(cell), (left, top))
        middle = top + height + _CAPTION_MIDDLE_PX
        written = write_line(draw, (GAP_PX, middle), row.caption, TEXT, max_width_px=width - 2 * GAP_PX)
        used = written + 3 * GAP_PX if written else 0
        max_width_px = width - 2 * GAP_PX - used
        write_line(draw, (width - GAP_PX, middle), row.aside, FAINT, max_width_px=max_width_px, anchor="rm")
        top += height + below
    picture.info[GRID_TEXT] = json.dumps({"titles": list(titles), "rows": positions})
    return picture


def save_png(picture: Image.Image, path: Path, program: str) -> None:
    """Write the picture atomically as a PNG file, with the program's name in its Exif.

    For a picture from `grid`, a text chunk named `GRID_TEXT` has the positions of the cells, so that they can be
    extracted again: JSON with `titles`, and `rows` with `cells` (left, top, width, height in px), `caption` and
    `aside`. Missing folders are created. RunError when the file cannot be written.
    """
    text = PngImagePlugin.PngInfo()
    if GRID_TEXT in picture.info:
        text.add_text(GRID_TEXT, picture.info[GRID_TEXT])
    content = io.BytesIO()
    picture.save(content, "PNG", pnginfo=text, exif=exif_mark(program))
    with writing(path):
        write_atomically(path, content.getvalue())


def write_line(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    colour: tuple[int, int, int],
    size_px: int = _TEXT_PX,
    max_width_px: int | None = None,
    anchor: Literal["lm", "rm", "la"] = "lm",
) -> int:
    """Draw one line of text, shortened to at most `max_width_px`. Return its width in px.

    Text with characters that no known font of the system has is omitted: all of them would be equal boxes.

    `at` (x, y) is the middle of its left edge ("lm"), of its right edge ("rm") or its top left corner ("la").
    """
    # File names may contain unprintable characters.
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    font = _font(text, size_px)
    if font is None:
        return 0
    if max_width_px is not None and draw.textlength(text, font) > max_width_px:
        from_right = anchor == "rm"
        while text and draw.textlength(text + "…", font) > max_width_px:
            text = text[1:] if from_right else text[:-1]
        text = "" if not text else "…" + text if from_right else text + "…"
    draw.text(at, text, colour, font, anchor=anchor)
    return round(draw.textlength(text, font))


def _font(text: str, size_px: int) -> _Font | None:
    """Return a font that has all characters; None if there is none."""
    if all(ord(char) <= _LAST_LATIN or char == "…" for char in text):
        return ImageFont.load_default(size_px)
    wide = any(ord(char) >= 0x2E80 for char in text)  # East Asian scripts start here
    for name in (_CJK_FONTS + _OTHER_FONTS) if wide else _OTHER_FONTS:
        try:
            font = ImageFont.truetype(name, size_px)
        except OSError:
            continue
        if _has_glyphs(font, text):
            return font
    return None


def _has_glyphs(font: ImageFont.FreeTypeFont, text: str) -> bool:
    missing = bytes(font.getmask(_UNASSIGNED))
    return all(bytes(font.getmask(char)) != missing for char in set(text) if not char.isspace())
