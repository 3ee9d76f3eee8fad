"""A picture of some triplets, pixel for pixel."""

from pathlib import Path

import numpy as np

from srshards.errors import RunError, UsageError
from srshards.format import Address, Manifest, lr_name
from srshards.imaging.contact_sheet import BACKGROUND, Row, grid, save_png
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import resize
from srshards.shards.stored_samples import StoredSample, open_manifest, stored_samples
from srshards.shards.subset import evenly_spaced

_MAX_CELL_PX = 320  # larger images show their centre, so that a pixel of the file is a pixel of the picture
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
    rows = [Row(_cells(sample, manifest, cell), *_caption(sample)) for sample in samples]
    save_png(grid(rows, _titles(manifest, cell)), output, "shardgen preview")
    return len(rows)


def _lr_names(manifest: Manifest) -> list[str]:
    return [lr_name(variant) for variant in range(min(manifest.variants, _MAX_VARIANTS_SHOWN))]


def _titles(manifest: Manifest, cell: int) -> list[str]:
    centre = " (centre)" if cell < manifest.hr_size else ""
    lrs = [f"{name.upper()}, {manifest.scale}x nearest" for name in _lr_names(manifest)]
    return [f"HR{centre}", *lrs, *(["up", f"|HR - up| x {_DIFFERENCE_GAIN}"] if manifest.has_up else [])]


def _spread(manifest: Manifest, count: int) -> list[StoredSample]:
    picked = []
    for record, places in evenly_spaced(manifest.shards, count):
        samples = stored_samples(manifest.folder, record.name)
        if len(samples) != record.samples:
            raise RunError(f"{record.name} is not what the manifest says: run `shardgen verify {manifest.folder}`")
        picked += [samples[place] for place in places]
    return picked


def _cell_px(manifest: Manifest) -> int:
    largest = min(_MAX_CELL_PX, manifest.hr_size)
    return largest - largest % manifest.scale


def _cells(sample: StoredSample, manifest: Manifest, cell: int) -> list[Pixels]:
    """The images of a row; the background for a variant that a sample of validation does not have."""
    hr, scale = sample.image("hr"), manifest.scale
    start = (hr.shape[0] - cell) // 2
    start -= start % scale
    part, small = slice(start, start + cell), slice(start // scale, (start + cell) // scale)
    cells = [hr[part, part]]
    nothing = np.full_like(cells[0], BACKGROUND)
    for name in _lr_names(manifest):
        there = name in sample.members
        cells.append(resize(sample.image(name)[small, small], cell, cell, "nearest") if there else nothing)
    if manifest.has_up:
        up = sample.image("up")[part, part]
        difference = np.abs(hr[part, part].astype(np.int16) - up) * _DIFFERENCE_GAIN
        cells += [up, difference.clip(0, 255).astype(np.uint8)]
    return cells


def _caption(sample: StoredSample) -> tuple[str, str]:
    """Class and quality; the photo's path."""
    described = sample.describe()
    psnr = described.get("psnr_up_db")
    quality = f"PSNR {psnr:.2f} dB" if isinstance(psnr, float) else "PSNR inf dB"
    return f"{described.get('class')}   {quality}", str(described.get("source"))
