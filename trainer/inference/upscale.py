"""Upscale photo files with a network, including transparency, grayscale and comparison images.

While the network computes, a thread reads the next photo and another one writes the last result.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import cv2
import numpy as np
import torch

from srshards.errors import UsageError
from srshards.imaging.photo import DecodedPhoto, stored_pixels
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import cubic_up
from srshards.process.resources import available_memory_bytes
from srshards.storage.threads import start_in_thread
from trainer.inference.comparison import write_comparison
from trainer.inference.photo_files import check_writable, read_photo, write_photo
from trainer.inference.result_paths import compare_path, refuse_to_overwrite, result_paths
from trainer.inference.tile_memory import apply_within_memory, choose_tile
from trainer.inference.tiles import TileRule
from trainer.models import Network

_COMPUTED = 0.95  # of a photo's progress; the rest is writing
# Memory for what overlaps the network, which itself may use half: bytes per pixel, and shares of the free memory.
_DECODING_BYTES = 8
_SHARE_FOR_READING = 0.25
_SHARE_FOR_RESULT = 0.5


@dataclass(frozen=True)
class Upscaled:
    """The result for one photo. Sizes are (width, height) in px.

    Seconds include reading and writing, which overlap the work on other photos.
    """

    photo: Path
    result: Path
    compare: Path | None
    size_before: tuple[int, int]
    size_after: tuple[int, int]
    seconds: float
    replaced: bool  # whether the result overwrote an existing file
    compare_replaced: bool


class Listener:
    """Is told how `upscale_photos` proceeds, in the caller's thread. This one ignores it."""

    def progressed(self, index: int, share: float) -> None:
        """The photo of that index is done to a share of 0 to 1, which falls when its tiles have to be smaller."""

    def wrote(self, upscaled: Upscaled) -> None:
        """A result was written. Called in the order of the photos."""


@dataclass(frozen=True)
class _Job:
    index: int
    photo: Path
    result: Path
    compare: Path | None
    factor: int


def upscale_photos(
    model: Network,
    photos: Sequence[Path],
    output: Path,
    *,
    device: torch.device,
    tile: int | Literal["auto"] | None = "auto",
    scale: int | None = None,
    compare: bool = False,
    listener: Listener | None = None,
) -> None:
    """Upscale photos in their order.

    `output` is a file if it has a photo's extension, otherwise a folder for NAME_4x.png; photos with equal names keep
    their subfolders, or are numbered. `tile` is the largest tile edge in px, None for no tiling, or "auto". `scale` is
    required for networks of scale 1: the photo is first upscaled with OpenCV's cubic, shardgen's default for `up`.
    `compare` also writes NAME_4x_compare.png: bicubic next to the network, where the photo has the most detail.

    Only results of this command are overwritten. UsageError immediately for arguments that contradict each other. A
    photo that fails does not stop the others; failures are listed in a UsageError after the last photo. RunError if a
    result cannot be written; that of the photo before is complete. Files are never incomplete, also after Ctrl-C.
    """
    factor = _factor(model, scale)
    if isinstance(tile, int):
        TileRule.of(model.spec).check(tile)
    results = result_paths(photos, output, factor)
    compares = [compare_path(result) if compare else None for result in results]
    refuse_to_overwrite(photos, results + [path for path in compares if path])
    model.to(device).eval()
    jobs = [_Job(index, *paths, factor) for index, paths in enumerate(zip(photos, results, compares, strict=True))]

    def upscale(photo: DecodedPhoto, on_progress: Callable[[float], None]) -> DecodedPhoto:
        return _upscale_photo(model, photo, factor, device, tile, on_progress)

    with ThreadPoolExecutor(1, "upscale-writer") as pool:
        failures = _Pipeline(jobs, upscale, pool, listener or Listener()).run()
    if failures:
        raise UsageError("\n  ".join([f"{len(failures)} of {len(jobs)} photos could not be upscaled:", *failures]))


class _WriteFailed(Exception):
    """Ends the network's work on a photo when the last result could not be written.

    The error itself might be taken for one of the network: memory runs out in both.
    """


class _Pipeline:
    """Reads, upscales and writes photos, with at most one photo read ahead and one result being written."""

    def __init__(
        self,
        jobs: Sequence[_Job],
        upscale: Callable[[DecodedPhoto, Callable[[float], None]], DecodedPhoto],
        pool: ThreadPoolExecutor,
        listener: Listener,
    ) -> None:
        self._jobs, self._upscale, self._pool, self._listener = jobs, upscale, pool, listener
        self._ahead: Future[tuple[DecodedPhoto, float] | None] | None = None
        self._written: tuple[_Job, Future[Upscaled]] | None = None

    def run(self) -> list[str]:
        """Return the messages of the photos that failed. A single photo's error is raised."""
        failures = []
        try:
            for job in self._jobs:
                try:
                    self._process(job)
                except UsageError as error:
                    if len(self._jobs) == 1:
                        raise
                    failures.append(str(error))
                    self._listener.progressed(job.index, 1)
        finally:
            self._finish_writing()  # its error takes precedence, being that of an earlier photo
        return failures

    def _process(self, job: _Job) -> None:
        before, read_s = self._next_photo(job)
        if self._written and not _has_room(3 * before.rgb[:, :, 0].size * job.factor**2, _SHARE_FOR_RESULT):
            self._finish_writing()
        start = perf_counter()
        try:
            after = self._upscale(before, lambda share: self._progressed(job, share))
        except UsageError:  # out of memory
            if self._written is None:
                raise
            self._finish_writing()
            after = self._upscale(before, lambda share: self._progressed(job, share))
        seconds = read_s + perf_counter() - start
        self._finish_writing()
        self._written = job, self._pool.submit(_write, job, before, after, seconds)

    def _next_photo(self, job: _Job) -> tuple[DecodedPhoto, float]:
        """Return the photo and the seconds that reading it took, and start to read the next one."""
        ahead, self._ahead = self._ahead, None
        # What fails ahead is tried again on its turn: the other photos may have used up the memory.
        read = None if ahead is None or ahead.exception() else ahead.result()
        photo = read or _read(job)
        if following := self._jobs[job.index + 1 : job.index + 2]:
            self._ahead = start_in_thread(_read_ahead, following[0])
        return photo

    def _progressed(self, job: _Job, share: float) -> None:
        if self._written and self._written[1].done():
            if self._written[1].exception():
                raise _WriteFailed
            self._finish_writing()
        self._listener.progressed(job.index, _COMPUTED * share)

    def _finish_writing(self) -> None:
        """Wait for the result that is being written, if there is one."""
        if self._written:
            (job, future), self._written = self._written, None
            upscaled = future.result()
            self._listener.progressed(job.index, 1)
            self._listener.wrote(upscaled)


def _read(job: _Job) -> tuple[DecodedPhoto, float]:
    start = perf_counter()
    photo = read_photo(job.photo)
    height, width = photo.rgb.shape[:2]
    check_writable(job.result, height * job.factor, width * job.factor, photo.alpha is not None)
    if job.compare:
        check_writable(job.compare, 1, 1, has_alpha=False)
    return photo, perf_counter() - start


def _read_ahead(job: _Job) -> tuple[DecodedPhoto, float] | None:
    """Read the photo if it takes little of the free memory."""
    return _read(job) if _has_room(_DECODING_BYTES * stored_pixels(job.photo), _SHARE_FOR_READING) else None


def _has_room(num_bytes: int, share: float) -> bool:
    return num_bytes <= share * available_memory_bytes()


def _write(job: _Job, before: DecodedPhoto, after: DecodedPhoto, seconds: float) -> Upscaled:
    start = perf_counter()
    replaced = os.path.exists(job.result)  # False, not an error, for an invalid file name
    compare_replaced = job.compare is not None and os.path.exists(job.compare)
    write_photo(job.result, after)
    if job.compare:
        write_comparison(job.compare, job.photo.name, before, after, job.factor)
    return Upscaled(
        photo=job.photo,
        result=job.result,
        compare=job.compare,
        size_before=(before.rgb.shape[1], before.rgb.shape[0]),
        size_after=(after.rgb.shape[1], after.rgb.shape[0]),
        seconds=seconds + perf_counter() - start,
        replaced=replaced,
        compare_replaced=compare_replaced,
    )


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
    model: Network,
    photo: DecodedPhoto,
    factor: int,
    device: torch.device,
    tile: int | Literal["auto"] | None,
    on_progress: Callable[[float], None],
) -> DecodedPhoto:
    rgb = photo.rgb if photo.alpha is None else _fill_transparent(photo.rgb, photo.alpha)
    if model.scale == 1:
        rgb = cubic_up(rgb, factor)
    image = torch.from_numpy(np.require(rgb, requirements=["C", "W"])).permute(2, 0, 1)[None]
    tile_px = choose_tile(model, rgb.shape[0], rgb.shape[1], device) if tile == "auto" else tile
    output = apply_within_memory(model, image, tile_px, TileRule.of(model.spec), torch.uint8, on_progress)
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
