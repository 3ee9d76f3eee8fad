"""People's photos enlarged by a network: one or many, with transparency, in grey, and beside plain enlargement."""

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
from trainer.inference.tiles import choose_tile, enlarge_within_memory
from trainer.models import Network

_CROP_PX = 480  # edge of a side of the comparison, in pixels of the result
_CONTEXT_PX = 4  # around the crop, for the bicubic kernel
_ENOUGH_CONTRAST = 12  # grey levels
_BEHIND = 96  # grey level that the comparison shows through transparency


@dataclass(frozen=True)
class Upscaled:
    """One photo's result. Sizes are (width, height) in px; seconds include reading and writing."""

    photo: Path
    result: Path
    compare: Path | None
    size_before: tuple[int, int]
    size_after: tuple[int, int]
    seconds: float
    replaced: bool  # there was a file of that name before
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
    """Enlarge photos one after the other; each is written when it is done.

    `output` is the file to write if it is named like a photo, and a folder otherwise, where NAME_4x.png is written for
    each; photos of one name keep their subfolders, or are numbered. `tile` is an edge in px, None for whole photos, or
    "auto". `scale` is only needed for networks that restore an enlarged photo (scale 1): the photo is first enlarged
    with OpenCV's cubic, as shardgen makes `up`. `compare` also writes NAME_4x_compare.png: plain enlargement beside the
    network's, where the photo has the most detail.

    A result of an earlier run is replaced, and that is said; no other file is. UsageError at once when the words do not
    fit together. A photo that fails does not stop the others: they are named in a UsageError after the last one.
    """
    factor = _factor(model, scale)
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
            after = _enlarge_photo(model, before, factor, device, tile)
        except UsageError as error:
            if len(work) == 1:
                raise
            failures.append(str(error))
            continue
        replaced = os.path.exists(result)  # False for a name that no file can have
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
        raise UsageError("\n  ".join([f"{len(failures)} of {len(work)} photos could not be enlarged:", *failures]))


def _factor(model: Network, scale: int | None) -> int:
    """How many times larger the photos become."""
    if model.scale == 1:
        if scale is None:
            raise UsageError(
                "this network restores photos that are enlarged already (scale 1): say how much, e.g. --scale 4"
            )
        return scale
    if scale not in (None, model.scale):
        raise UsageError(
            f"this network enlarges {model.scale}x, not {scale}x: leave --scale out, or take other weights"
        )
    return model.scale


def _enlarge_photo(
    model: Network, photo: DecodedPhoto, factor: int, device: torch.device, tile: int | Literal["auto"] | None
) -> DecodedPhoto:
    rgb = photo.rgb if photo.alpha is None else _continued_under_transparency(photo.rgb, photo.alpha)
    if model.scale == 1:
        rgb = cubic_up(rgb, factor)
    image = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None]
    tile_px = choose_tile(model, rgb.shape[0], rgb.shape[1], device) if tile == "auto" else tile
    output = enlarge_within_memory(model, image, tile_px, model.spec.margin_px, torch.uint8)
    pixels = np.ascontiguousarray(output[0].permute(1, 2, 0).numpy())
    if photo.is_grey:  # networks give grey a tint
        pixels = np.asarray(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
    return replace(photo, rgb=pixels, alpha=None if photo.alpha is None else cubic_up(photo.alpha, factor))


def _continued_under_transparency(rgb: Pixels, alpha: Pixels) -> Pixels:
    """The nearest visible colour in place of what is wholly transparent: often black, it would bleed into the edges."""
    visible = alpha > 0
    if visible.all() or not visible.any():
        return rgb
    hidden = (~visible).astype(np.uint8)
    labels = cv2.distanceTransformWithLabels(hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    colours = np.zeros((int(labels.max()) + 1, 3), np.uint8)
    colours[labels[visible]] = rgb[
        visible
    ]  # each visible pixel has a label of its own, the others have their nearest's
    return np.asarray(colours[labels], np.uint8)


def _write_comparison(path: Path, name: str, before: DecodedPhoto, after: DecodedPhoto, factor: int) -> None:
    small, large = _over_grey(before), _over_grey(after)
    top, left, height, width = _most_detailed(small, max(_CROP_PX // factor, 1))
    outer_top, outer_left = max(top - _CONTEXT_PX, 0), max(left - _CONTEXT_PX, 0)
    outer = small[outer_top : top + height + _CONTEXT_PX, outer_left : left + width + _CONTEXT_PX]
    inner_top, inner_left = (top - outer_top) * factor, (left - outer_left) * factor
    size = (slice(inner_top, inner_top + height * factor), slice(inner_left, inner_left + width * factor))
    plain = bicubic_up(outer, factor)[size]
    ours = large[top * factor : (top + height) * factor, left * factor : (left + width) * factor]
    sizes = " to ".join(f"{image.shape[1]} x {image.shape[0]} px" for image in (small, large))
    drawn = grid([Row((plain, ours), sizes, name)], ("bicubic", f"network, {factor}x"))
    save_png(drawn, path, "trainer upscale")


def _over_grey(photo: DecodedPhoto) -> Pixels:
    if photo.alpha is None:
        return photo.rgb
    share = photo.alpha[:, :, None].astype(np.float32) / 255
    return np.rint(photo.rgb * share + _BEHIND * (1 - share)).astype(np.uint8)


def _most_detailed(image: Pixels, crop_px: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the crop with the most local contrast, at most crop_px on a side."""
    height, width = (min(crop_px, size) for size in image.shape[:2])
    grey = luma_full_range(image)
    # One strong edge is not much to see: fine detail is what networks and plain enlargement differ in.
    contrast = np.minimum(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1)), _ENOUGH_CONTRAST)
    return *strongest_window(contrast, height, width), height, width
