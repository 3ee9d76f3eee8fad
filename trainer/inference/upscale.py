"""Upscale photo files with a network, including transparency, greyscale and comparison images."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import cv2
import numpy as np
import torch

from srshards.errors import UsageError
from srshards.imaging.bicubic import bicubic_up
from srshards.imaging.contact_sheet import Row, grid, save_png
from srshards.imaging.luma import luma_full_range
from srshards.imaging.photo import DecodedPhoto
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import cubic_up
from srshards.imaging.window import strongest_window
from trainer.inference.photo_files import check_writable, read_photo, write_photo
from trainer.inference.result_paths import compare_path, refuse_to_overwrite, result_paths
from trainer.inference.tile_memory import apply_within_memory, choose_tile
from trainer.inference.tiles import check_tile
from trainer.models import Network

_CROP_PX = 480  # edge of each half of the comparison, in px of the result
_CONTEXT_PX = 4  # around the crop, for the bicubic kernel
_MAX_CONTRAST = 12  # grey levels
_BACKGROUND = 96  # grey level behind transparent pixels in the comparison


@dataclass(frozen=True)
class Upscaled:
    """The result for one photo. Sizes are (width, height) in px; seconds include reading and writing."""

    photo: Path
    result: Path
    compare: Path | None
    size_before: tuple[int, int]
    size_after: tuple[int, int]
    seconds: float
    replaced: bool  # whether the result overwrote an existing file
    compare_replaced: bool


def upscale_photos(
    model: Network,
    photos: Sequence[Path],
    output: Path,
    *,
    device: torch.device,
    tile: int | Literal["auto"] | None = "auto",
    scale: int | None = None,
    compare: bool = False,
) -> Iterator[Upscaled]:
    """Upscale photos one by one, yielding each result once it is written.

    `output` is a file if it has a photo's extension, otherwise a folder for NAME_4x.png; photos with equal names keep
    their subfolders, or are numbered. `tile` is a tile edge in px, None for no tiling, or "auto". `scale` is required
    for networks of scale 1: the photo is first upscaled with OpenCV's cubic, shardgen's default for `up`. `compare`
    also writes NAME_4x_compare.png: bicubic next to the network, where the photo has the most detail.

    Only results of this command are overwritten. UsageError immediately for arguments that contradict each other. A
    photo that fails does not stop the others; failures are listed in a UsageError after the last photo.
    """
    factor = _factor(model, scale)
    if isinstance(tile, int):
        check_tile(tile, model.spec.margin_px)
    results = result_paths(photos, output, factor)
    refuse_to_overwrite(photos, results + [compare_path(result) for result in results if compare])
    model.to(device).eval()
    return _upscale_all(model, list(zip(photos, results, strict=True)), factor, device, tile, compare)


def _upscale_all(
    model: Network,
    work: list[tuple[Path, Path]],
    factor: int,
    device: torch.device,
    tile: int | Literal["auto"] | None,
    compare: bool,
) -> Iterator[Upscaled]:
    failures = []
    for path, result in work:
        start = perf_counter()
        try:
            before = read_photo(path)
            height, width = before.rgb.shape[:2]
            check_writable(result, height * factor, width * factor, before.alpha is not None)
            if compare:
                check_writable(compare_path(result), 1, 1, has_alpha=False)
            after = _upscale_photo(model, before, factor, device, tile)
        except UsageError as error:
            if len(work) == 1:
                raise
            failures.append(str(error))
            continue
        replaced = os.path.exists(result)  # False, not an error, for an invalid file name
        compare_replaced = compare and os.path.exists(compare_path(result))
        write_photo(result, after)
        if compare:
            _write_comparison(compare_path(result), path.name, before, after, factor)
        yield Upscaled(
            photo=path,
            result=result,
            compare=compare_path(result) if compare else None,
            size_before=(width, height),
            size_after=(width * factor, height * factor),
            seconds=perf_counter() - start,
            replaced=replaced,
            compare_replaced=compare_replaced,
        )
    if failures:
        raise UsageError("\n  ".join([f"{len(failures)} of {len(work)} photos could not be upscaled:", *failures]))


def _factor(model: Network, scale: int | None) -> int:
    """Return the upscaling factor."""
    if model.scale == 1:
        if scale is None:
            raise UsageError("this network takes upsampled photos of any scale; pass the scale, e.g. --scale 4")
        return scale
    if scale not in (None, model.scale):
        raise UsageError(f"this network upscales {model.scale}x, not {scale}x; omit --scale, or pass other --weights")
    return model.scale


def _upscale_photo(
    model: Network, photo: DecodedPhoto, factor: int, device: torch.device, tile: int | Literal["auto"] | None
) -> DecodedPhoto:
    rgb = photo.rgb if photo.alpha is None else _fill_transparent(photo.rgb, photo.alpha)
    if model.scale == 1:
        rgb = cubic_up(rgb, factor)
    image = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None]
    tile_px = choose_tile(model, rgb.shape[0], rgb.shape[1], device) if tile == "auto" else tile
    output = apply_within_memory(model, image, tile_px, model.spec.margin_px, torch.uint8)
    pixels = np.ascontiguousarray(output[0].permute(1, 2, 0).numpy())
    if photo.is_grey:  # networks slightly tint grey
        pixels = np.asarray(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
    return replace(photo, rgb=pixels, alpha=None if photo.alpha is None else cubic_up(photo.alpha, factor))


def _fill_transparent(rgb: Pixels, alpha: Pixels) -> Pixels:
    """Give fully transparent pixels the nearest visible colour: they are often black, which would bleed into edges."""
    visible = alpha > 0
    if visible.all() or not visible.any():
        return rgb
    hidden = (~visible).astype(np.uint8)
    labels = cv2.distanceTransformWithLabels(hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    colours = np.zeros((int(labels.max()) + 1, 3), np.uint8)
    # Each visible pixel has a unique label; the others have the label of the nearest visible pixel.
    colours[labels[visible]] = rgb[visible]
    return np.asarray(colours[labels], np.uint8)


def _write_comparison(path: Path, name: str, before: DecodedPhoto, after: DecodedPhoto, factor: int) -> None:
    small, large = _composite(before), _composite(after)
    top, left, height, width = _most_detailed(small, max(_CROP_PX // factor, 1))
    outer_top, outer_left = max(top - _CONTEXT_PX, 0), max(left - _CONTEXT_PX, 0)
    outer = small[outer_top : top + height + _CONTEXT_PX, outer_left : left + width + _CONTEXT_PX]
    inner_top, inner_left = (top - outer_top) * factor, (left - outer_left) * factor
    inner = (slice(inner_top, inner_top + height * factor), slice(inner_left, inner_left + width * factor))
    bicubic = bicubic_up(outer, factor)[inner]
    network = large[top * factor : (top + height) * factor, left * factor : (left + width) * factor]
    sizes = " to ".join(f"{image.shape[1]} x {image.shape[0]} px" for image in (small, large))
    comparison = grid([Row((bicubic, network), sizes, name)], ("bicubic", f"network, {factor}x"))
    save_png(comparison, path, "trainer upscale")


def _composite(photo: DecodedPhoto) -> Pixels:
    """Return the photo over a uniform grey background."""
    if photo.alpha is None:
        return photo.rgb
    opacity = photo.alpha[:, :, None].astype(np.float32) / 255
    return np.rint(photo.rgb * opacity + _BACKGROUND * (1 - opacity)).astype(np.uint8)


def _most_detailed(image: Pixels, crop_px: int) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the crop with the most local contrast, at most crop_px on a side."""
    height, width = (min(crop_px, size) for size in image.shape[:2])
    grey = luma_full_range(image)
    # Contrast is capped so that fine detail, in which the network and bicubic differ, outweighs one strong edge.
    contrast = np.minimum(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1)), _MAX_CONTRAST)
    return *strongest_window(contrast, height, width), height, width
