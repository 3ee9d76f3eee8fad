"""A picture of some triplets, pixel for pixel."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from srshards.errors import RunError, UsageError
from srshards.format import Address, Manifest, lr_name
from srshards.imaging.contact_sheet import BACKGROUND, FAINT, GAP_PX, TEXT, save_png, write_text
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import resize
from srshards.shards.samples import StoredSample, open_manifest, stored_samples

_MAX_CELL_PX = 320  # larger images show their centre, so that a pixel of the file is a pixel of the picture
_HEADER_PX = 30
_CAPTION_PX = 26
_DIFFERENCE_GAIN = 4
_MAX_VARIANTS_SHOWN = 4


def draw_preview(folder: Address, output: Path, count: int) -> int:
    """Write a PNG with up to `count` rows of HR, its LR images (enlarged with nearest), up, and 4 x |HR - up|.

    The samples are spread evenly over the shards, and so over the classes. Returns the number of rows.
    """
    manifest = open_manifest(folder)
    samples = _spread(manifest, count)
    if not samples:
        raise UsageError(f"{folder} holds no samples")
    cell = _cell_px(manifest)
    rows = [(_caption(sample), _cells(sample, manifest, cell)) for sample in samples]
    columns = max(len(cells) for _, cells in rows)
    width = columns * cell + (columns + 1) * GAP_PX
    height = _HEADER_PX + len(rows) * (cell + _CAPTION_PX + GAP_PX) + GAP_PX
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for column, title in enumerate(_titles(manifest, cell)):
        write_text(draw, (GAP_PX + column * (cell + GAP_PX), 8), title, FAINT)
    top = _HEADER_PX
    for caption, cells in rows:
        for column, pixels in enumerate(cells):
            if pixels is not None:
                picture.paste(Image.fromarray(pixels), (GAP_PX + column * (cell + GAP_PX), top))
        write_text(draw, (GAP_PX, top + cell + 5), caption, TEXT)
        top += cell + _CAPTION_PX + GAP_PX
    save_png(picture, output, "shardgen preview")
    return len(rows)


def _lr_names(manifest: Manifest) -> list[str]:
    return [lr_name(variant) for variant in range(min(manifest.variants, _MAX_VARIANTS_SHOWN))]


def _titles(manifest: Manifest, cell: int) -> list[str]:
    centre = " (centre)" if cell < manifest.hr_size else ""
    lrs = [f"{name.upper()}, {manifest.scale}x nearest" for name in _lr_names(manifest)]
    return [f"HR{centre}", *lrs, *(["up", f"|HR - up| x {_DIFFERENCE_GAIN}"] if manifest.has_up else [])]


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


def _cells(sample: StoredSample, manifest: Manifest, cell: int) -> list[Pixels | None]:
    """The pictures of a row; None for a variant that a sample of validation does not have."""
    hr, scale = sample.image("hr"), manifest.scale
    start = (hr.shape[0] - cell) // 2
    start -= start % scale
    part, small = slice(start, start + cell), slice(start // scale, (start + cell) // scale)
    cells: list[Pixels | None] = [hr[part, part]]
    for name in _lr_names(manifest):
        there = name in sample.members
        cells.append(resize(sample.image(name)[small, small], cell, cell, "nearest") if there else None)
    if manifest.has_up:
        up = sample.image("up")[part, part]
        difference = np.abs(hr[part, part].astype(np.int16) - up) * _DIFFERENCE_GAIN
        cells += [up, difference.clip(0, 255).astype(np.uint8)]
    return cells


def _caption(sample: StoredSample) -> str:
    described = sample.describe()
    psnr = described.get("psnr_up_db")
    quality = f"PSNR {psnr:.2f} dB" if isinstance(psnr, float) else "PSNR inf dB"
    return f"{described.get('class')}   {quality}   {described.get('source')}"
