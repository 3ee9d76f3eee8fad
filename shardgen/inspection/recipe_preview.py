"""Draw one photo degraded several times by a recipe, with the parameters drawn for each LR image."""

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw

from shardgen.degradation.degrade import draw_variants, make_lrs
from shardgen.degradation.describe import format_step
from shardgen.degradation.recipe import DrawnSteps, Recipe
from shardgen.planning.config import Config
from shardgen.shard.triplet import decode_reduced, hr_boxes, render_crop
from srshards.errors import PhotoError, RunError
from srshards.imaging.contact_sheet import BACKGROUND, FAINT, GAP_PX, TEXT, save_png, write_line
from srshards.imaging.photo import read_bytes
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import resize

_CELL_PX = 256  # approximate: LR is upscaled by an integer factor
_TEXT_PX = 270
_LINE_CHARS = 40  # that fit into _TEXT_PX
_FONT_PX, _LINE_PX = 12, 16
_COLUMNS = 3


def draw_recipe_preview(photo: Path, recipe: Recipe, scale: int, count: int, output: Path) -> None:
    """Write a PNG of HR, the photo's centre square at 512 px, and `count` LR images with their parameters.

    RunError when the photo cannot be decoded.
    """
    config = Config(photo.parent, output.parent, scales=(scale,), degradation=recipe)
    hr = _hr(photo, config)
    drawn = draw_variants(recipe, count, config.seed, photo.name, (0, 0), hr.shape[0], scale)
    lrs = make_lrs(hr, scale, config.method, drawn)
    cell = max(1, _CELL_PX // len(lrs[0])) * len(lrs[0])
    about_lr = f"LR is shown {cell // len(lrs[0])}x, nearest neighbour"
    cells = [(resize(hr, cell, cell, "area"), ["HR", photo.name, f"{hr.shape[1]} x {hr.shape[0]} px", about_lr])]
    for number, (lr, steps) in enumerate(zip(lrs, drawn, strict=True), 1):
        cells.append((resize(lr, cell, cell, "nearest"), _lines(number, steps)))
    rows = [cells[first : first + _COLUMNS] for first in range(0, len(cells), _COLUMNS)]
    heights = [max(cell, *(len(lines) * _LINE_PX for _, lines in row)) + GAP_PX for row in rows]
    cell_px = cell + _TEXT_PX + 2 * GAP_PX
    picture = Image.new("RGB", (_COLUMNS * cell_px + GAP_PX, sum(heights) + GAP_PX), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    top = GAP_PX
    for row, height in zip(rows, heights, strict=True):
        for column, (pixels, lines) in enumerate(row):
            left = GAP_PX + column * cell_px
            picture.paste(Image.fromarray(pixels), (left, top))
            for number, line in enumerate(lines):
                at = (left + cell + GAP_PX, top + number * _LINE_PX)
                write_line(draw, at, line, FAINT if number else TEXT, _FONT_PX, anchor="la")
        top += height
    save_png(picture, output, "shardgen preview")


def _hr(photo: Path, config: Config) -> Pixels:
    try:
        decoded = decode_reduced(read_bytes(photo), config)
    except PhotoError as error:
        raise RunError(f"{photo}: {error}") from error
    crop = render_crop(decoded, hr_boxes(decoded, config)[0], config)
    hr_size = config.hr_size(config.scales[0])
    return crop.pixels[:hr_size, :hr_size]


def _lines(number: int, steps: DrawnSteps) -> list[str]:
    wrapped = [textwrap.wrap(format_step(step), _LINE_CHARS, subsequent_indent="    ") for step in steps]
    return [f"LR {number}", *(line for lines in wrapped for line in lines)]
