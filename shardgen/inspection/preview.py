"""Draw samples of a shard folder as a picture, one row each."""

from pathlib import Path

import numpy as np

from srshards.errors import RunError, UsageError
from srshards.format import Address, Manifest, lr_name
from srshards.imaging.contact_sheet import BACKGROUND, Row, grid, save_png
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import resize
from srshards.shards.stored_samples import StoredSample, open_manifest, stored_samples
from srshards.shards.subset import evenly_spaced

_MAX_CELL_PX = 320  # of larger images only the centre is drawn, so that no image is scaled down
_SHORT_TITLE_PX, _LONG_TITLE_PX = 104, 240  # least cell width for "LR1 (shown 4x)", and with the method
_DIFFERENCE_GAIN = 4
_MAX_VARIANTS_SHOWN = 4


def draw_preview(folder: Address, output: Path, count: int) -> int:
    """Write a PNG with up to `count` rows of HR, LR images (upscaled by nearest neighbour), up, and 4 x |HR - up|.

    The samples are spread evenly over the shards, and so over the classes. Return the number of rows. UsageError when
    the folder is not one scale's or has no samples, RunError when a shard is damaged.
    """
    manifest = open_manifest(folder)
    samples = _spread(manifest, count)
    if not samples:
        raise UsageError(f"{folder} has no samples")
    cell = _cell_px(manifest)
    rows = [Row(_cells(sample, manifest, cell), *_caption(sample)) for sample in samples]
    save_png(grid(rows, titles(manifest, cell)), output, "shardgen preview")
    return len(rows)


def _lr_names(manifest: Manifest) -> list[str]:
    return [lr_name(variant) for variant in range(min(manifest.variants, _MAX_VARIANTS_SHOWN))]


def titles(manifest: Manifest, cell_px: int) -> list[str]:
    """Return the column titles, the long ones only where cells are wide enough for them."""
    centre = " (centre)" if cell_px < manifest.hr_size else ""
    method = ", nearest neighbour" if cell_px >= _LONG_TITLE_PX else ""
    shown = f" (shown {manifest.scale}x{method})" if cell_px >= _SHORT_TITLE_PX else ""
    lrs = [f"{name.upper()}{shown}" for name in _lr_names(manifest)]
    return [f"HR{centre}", *lrs, *(["up", f"|HR - up| x {_DIFFERENCE_GAIN}"] if manifest.has_up else [])]


def _spread(manifest: Manifest, count: int) -> list[StoredSample]:
    picked = []
    for record, positions in evenly_spaced(manifest.shards, count):
        samples = stored_samples(manifest.folder, record.name)
        if len(samples) != record.samples:
            fix = f"run `python -m shardgen verify {manifest.folder}`"
            raise RunError(f"{record.name}: expected {record.samples} samples, found {len(samples)}; {fix}")
        picked += [samples[position] for position in positions]
    return picked


def _cell_px(manifest: Manifest) -> int:
    largest = min(_MAX_CELL_PX, manifest.hr_size)
    return largest - largest % manifest.scale


def _cells(sample: StoredSample, manifest: Manifest, cell: int) -> list[Pixels]:
    """Return the images of a row; a validation sample has one variant, and background for the others."""
    hr, scale = sample.image("hr"), manifest.scale
    start = (hr.shape[0] - cell) // 2
    start -= start % scale
    part, small = slice(start, start + cell), slice(start // scale, (start + cell) // scale)
    cells = [hr[part, part]]
    blank = np.full_like(cells[0], BACKGROUND)
    for name in _lr_names(manifest):
        is_stored = name in sample.members
        cells.append(resize(sample.image(name)[small, small], cell, cell, "nearest") if is_stored else blank)
    if manifest.has_up:
        up = sample.image("up")[part, part]
        difference = np.abs(hr[part, part].astype(np.int16) - up) * _DIFFERENCE_GAIN
        cells += [up, difference.clip(0, 255).astype(np.uint8)]
    return cells


def _caption(sample: StoredSample) -> tuple[str, str]:
    """Return class and PSNR, and the photo's path."""
    described = sample.describe()
    psnr = described.get("psnr_up_db")
    quality = f"PSNR {psnr:.2f} dB" if isinstance(psnr, float) else "PSNR inf dB"
    return f"{described.get('class')}   {quality}", str(described.get("source"))
