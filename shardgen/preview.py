"""A picture of some triplets, pixel for pixel."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shardgen.errors import RunError, UsageError
from shardgen.files import temporary_path
from shardgen.format import Manifest
from shardgen.pixels import Pixels
from shardgen.resample import resize
from shardgen.shard_reader import StoredSample, open_manifest, stored_samples
from shardgen.statistics import psnr_up
from shardgen.triplet import Triplet

_MAX_CELL_PX = 320  # larger images show their centre, so that a pixel of the file is a pixel of the picture
_GAP_PX = 8
_HEADER_PX = 30
_CAPTION_PX = 26
_DIFFERENCE_GAIN = 4
_BACKGROUND, _TEXT, _FAINT = (24, 26, 30), (236, 238, 242), (160, 166, 176)

# Pillow's own font has no Chinese. Names of fonts that do, as Linux, macOS and Windows call their files.
_CJK_FONTS = ("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "PingFang.ttc", "msyh.ttc")


def draw_preview(folder: Path, output: Path, count: int) -> int:
    """Write a PNG with up to `count` rows of HR, LR (enlarged with nearest), up, and 4 x |HR - up|.

    The samples are spread evenly over the shards, and so over the classes. Returns the number of rows.
    """
    manifest = open_manifest(folder)
    samples = _spread(manifest, count)
    if not samples:
        raise UsageError(f"{folder} holds no samples")
    rows = [(sample.describe(), sample.triplet()) for sample in samples]
    cell = _cell_px(manifest)
    width = 4 * cell + 5 * _GAP_PX
    height = _HEADER_PX + len(rows) * (cell + _CAPTION_PX + _GAP_PX) + _GAP_PX
    picture = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    centre = " (centre)" if cell < manifest.hr_size else ""
    titles = (f"HR{centre}", f"LR, {manifest.scale}x nearest", "up", f"|HR - up| x {_DIFFERENCE_GAIN}")
    for column, title in enumerate(titles):
        _write(draw, (_GAP_PX + column * (cell + _GAP_PX), 8), title, _FAINT)
    top = _HEADER_PX
    for described, triplet in rows:
        for column, pixels in enumerate(_cells(triplet, manifest.scale, cell)):
            picture.paste(Image.fromarray(pixels), (_GAP_PX + column * (cell + _GAP_PX), top))
        _write(draw, (_GAP_PX, top + cell + 5), _caption(described, triplet), _TEXT)
        top += cell + _CAPTION_PX + _GAP_PX
    _save(picture, output)
    return len(rows)


def _spread(manifest: Manifest, count: int) -> list[StoredSample]:
    total = sum(record.samples for record in manifest.shards)
    wanted = {total * row // min(count, total) for row in range(min(count, total))} if total else set()
    picked, first = [], 0
    for record in manifest.shards:
        here = [number - first for number in sorted(wanted) if first <= number < first + record.samples]
        if here:
            samples = stored_samples(manifest.folder, record.name)
            if len(samples) != record.samples:
                raise RunError(f"{record.name} is not what the manifest says: run `shardgen verify {manifest.folder}`")
            picked += [samples[number] for number in here]
        first += record.samples
    return picked


def _cell_px(manifest: Manifest) -> int:
    largest = min(_MAX_CELL_PX, manifest.hr_size)
    return largest - largest % manifest.scale


def _cells(triplet: Triplet, scale: int, cell: int) -> list[Pixels]:
    start = (triplet.hr.shape[0] - cell) // 2
    start -= start % scale
    part = slice(start, start + cell)
    hr, up = triplet.hr[part, part], triplet.up[part, part]
    lr = triplet.lr[start // scale : (start + cell) // scale, start // scale : (start + cell) // scale]
    difference = np.abs(hr.astype(np.int16) - up) * _DIFFERENCE_GAIN
    return [hr, resize(lr, cell, cell, "nearest"), up, difference.clip(0, 255).astype(np.uint8)]


def _caption(described: dict[str, object], triplet: Triplet) -> str:
    psnr = psnr_up(triplet.hr, triplet.up)
    return f"{described.get('class')}   PSNR {'inf' if psnr is None else f'{psnr:.2f}'} dB   {described.get('source')}"


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    draw.text(at, text.encode("utf-8", "replace").decode(), colour, font=_font(text))


def _font(text: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if not text.isascii():
        for name in _CJK_FONTS:
            try:
                return ImageFont.truetype(name, 14)
            except OSError:
                continue
    return ImageFont.load_default(14)


def _save(picture: Image.Image, output: Path) -> None:
    temporary = temporary_path(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        picture.save(temporary, "PNG")
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {output}: {error.strerror}") from error
