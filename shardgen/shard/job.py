"""The unit of work of every engine: build one shard, at all its scales.

A photo is read and decoded once, and its triplets are written to the tar of each scale. Pixels never leave the process;
the result is a small record.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2

from shardgen.degradation.degrade import draw_variants, libraries
from shardgen.degradation.recipe import DrawnSteps
from shardgen.planning.boxes import Box, cropped_box
from shardgen.planning.config import Config
from shardgen.planning.photo_reader import photos_with_bytes
from shardgen.planning.plan import ShardPlan
from shardgen.planning.sources import Photo
from shardgen.planning.tile_counts import tiles_of
from shardgen.shard.marker import Marker
from shardgen.shard.statistics import ChannelSums, Statistics, psnr_up
from shardgen.shard.triplet import HrImage, TooSmall, decode_reduced, hr_boxes, is_enlarged, make_triplet, render_crop
from shardgen.shard.writer import ShardWriter
from srshards.errors import PhotoError
from srshards.format import EQUAL_PSNR_DB, MAX_SAMPLES_PER_SHARD, dump_json, image_names, sample_key, scale_folder
from srshards.imaging import codec
from srshards.storage.store import remove, storage_of

STAGES = ("read", "decode", "resize", "degrade", "statistics", "encode", "write")


@dataclass(frozen=True)
class ShardTask:
    """A shard to build at `scales`: those of the config's scales at which it is missing."""

    plan: ShardPlan
    scales: tuple[int, ...]
    config: Config


@dataclass(frozen=True)
class Progress:
    """Progress since the last report."""

    photos: int = 0
    failures: int = 0
    bytes: int = 0

    def __add__(self, other: "Progress") -> "Progress":
        return Progress(self.photos + other.photos, self.failures + other.failures, self.bytes + other.bytes)

    def __sub__(self, other: "Progress") -> "Progress":
        return Progress(self.photos - other.photos, self.failures - other.failures, self.bytes - other.bytes)


Report = Callable[[Progress], None]
# Called before a shard gets its final name. Raises if the run has ended, so that an orphaned worker changes nothing.
BeforeCommit = Callable[[], None]


@dataclass
class ShardResult:
    """The result of a task: its markers by scale, and the time of each stage in s."""

    name: str
    markers: dict[int, Marker] = field(default_factory=dict)
    stage_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))


def shard_fingerprint(plan: ShardPlan, config: Config, scale: int) -> str:
    """Return a hash of settings and photos; an existing shard with the same hash is up to date."""
    text = f"{config.fingerprint(scale, plan.split)} {plan.name} {plan.photos_digest}"
    return hashlib.sha256(text.encode()).hexdigest()


def limit_threads() -> None:
    """Disable OpenCV's threads in a worker process, because there is a process for each CPU."""
    cv2.setNumThreads(0)


def build_shard(task: ShardTask, report: Report, before_commit: BeforeCommit) -> ShardResult:
    """Build the shard at every scale of the task and write its done markers.

    `report` is called after every photo; `before_commit` is called at each scale, before the shard gets its final name
    and before its done marker is written. After any exception, an unfinished scale has either no files of the shard,
    or a tar and index without a done marker, which readers ignore.

    OSError when the shard cannot be written locally; StoreError when an object store fails to deliver an existing photo
    or to accept the shard.
    """
    result = ShardResult(task.plan.name)
    outputs: list[_ScaleOutput] = []
    with storage_of(task.config.output).staging(task.config.output) as staging:
        try:
            for scale in task.scales:
                outputs.append(_ScaleOutput(task, scale, staging, result.stage_s))
            for photo, read in photos_with_bytes(task.plan.photos, task.config.input):
                report(_add_photo(photo, read, task.config, outputs, result.stage_s))
            for output in outputs:
                before_commit()
                result.markers[output.scale] = output.commit(before_commit)
        except BaseException:
            for output in outputs:
                output.abort()
            raise
    return result


def _add_photo(
    photo: Photo,
    read: Callable[[], bytes],
    config: Config,
    outputs: list["_ScaleOutput"],
    stage_s: dict[str, float],
) -> Progress:
    before = sum(output.num_bytes for output in outputs)
    try:
        with _timed(stage_s, "read"):
            data = read()
        with _timed(stage_s, "decode"):
            decoded = decode_reduced(data, config)
        _refuse_overflow(decoded.true_size, config, outputs[0].num_samples)
        boxes = hr_boxes(decoded, config)
    except TooSmall as reason:
        for output in outputs:
            output.skipped.append((photo.path, str(reason)))
        return Progress(photos=1)
    except PhotoError as reason:
        for output in outputs:
            output.failures.append((photo.path, str(reason)))
        return Progress(photos=1, failures=1)
    for output in outputs:
        output.num_enlarged += is_enlarged(decoded.true_size, config)
    for box in boxes:
        with _timed(stage_s, "resize"):
            crop = render_crop(decoded, box, config)
        sums_by_size: dict[int, ChannelSums] = {}  # scales that divide the size share their HR image
        for output in outputs:
            output.add(photo, crop, sums_by_size)
    return Progress(photos=1, bytes=sum(output.num_bytes for output in outputs) - before)


def _refuse_overflow(true_size: tuple[int, int], config: Config, num_samples: int) -> None:
    """Raise PhotoError if the shard cannot hold the photo's samples, because the plan underestimated them."""
    tiles = tiles_of(*true_size, config) if config.fit == "tile" else 1
    room = MAX_SAMPLES_PER_SHARD - num_samples
    if tiles > room:
        raise PhotoError(
            f"has {tiles:,} tiles, but its shard has room for {room:,} more; pass a larger --tile-step or --size"
        )


class _ScaleOutput:
    """The output of a shard being built, at one scale."""

    def __init__(self, task: ShardTask, scale: int, staging: Path, stage_s: dict[str, float]) -> None:
        self.scale = scale
        self.num_bytes = 0
        self.num_enlarged = 0
        self.failures: list[tuple[str, str]] = []
        self.skipped: list[tuple[str, str]] = []
        self._plan, self._config, self._stage_s = task.plan, task.config, stage_s
        self._statistics = Statistics()
        folder = task.config.output / scale_folder(scale)
        self._marker_path = folder / f"{task.plan.name}.json"
        remove(self._marker_path)  # the old marker must not validate the new tar
        scale_staging = staging / scale_folder(scale)
        scale_staging.mkdir(exist_ok=True)
        self._writer = ShardWriter(folder, scale_staging, task.plan.name, task.plan.split)

    @property
    def num_samples(self) -> int:
        return self._writer.num_samples

    def add(self, photo: Photo, crop: HrImage, sums_by_size: dict[int, ChannelSums]) -> None:
        config, hr_size = self._config, self._config.hr_size(self.scale)
        with _timed(self._stage_s, "degrade"):
            drawn = self._draw(photo, crop.box)
            triplet = make_triplet(crop.pixels[:hr_size, :hr_size], self.scale, config.method, drawn)
        with _timed(self._stage_s, "statistics"):
            if hr_size not in sums_by_size:
                sums_by_size[hr_size] = ChannelSums.of(triplet.hr)
            psnr = psnr_up(triplet.hr, triplet.up)
            self._statistics.add(photo.class_name, hr_size**2, sums_by_size[hr_size], psnr)
        with _timed(self._stage_s, "encode"):
            images = [triplet.hr, *triplet.lrs, *([triplet.up] if config.up else [])]
            members = [
                (f"{name}.{config.codec}", codec.encode(config.codec, pixels))
                for name, pixels in zip(image_names(len(triplet.lrs), config.up), images, strict=True)
            ]
            members.append(("json", [self._describe(photo, cropped_box(crop.box, config.size, hr_size), psnr, drawn)]))
        with _timed(self._stage_s, "write"):
            key = sample_key(self._plan.split, self._plan.number, self.num_samples)
            self.num_bytes += self._writer.add(key, members)

    def _draw(self, photo: Photo, box: Box) -> list[DrawnSteps] | None:
        config = self._config
        if config.degradation is None:
            return None
        variants, hr_size = config.num_variants(self._plan.split), config.hr_size(self.scale)
        return draw_variants(config.degradation, variants, config.seed, photo.path, (box.x, box.y), hr_size, self.scale)

    def _describe(self, photo: Photo, box: Box, psnr: float | None, drawn: list[DrawnSteps] | None) -> bytes:
        description: dict[str, Any] = {
            "source": photo.path,
            "class": photo.class_name,
            "box": list(box),
            "scale": self.scale,
            "method": self._config.method,
            "psnr_up_db": EQUAL_PSNR_DB if psnr is None else psnr,
        }
        if drawn is not None:
            # As text, because table formats such as Arrow cannot hold steps with different parameters in one column.
            description |= {"degradation": json.dumps(drawn), "libraries": libraries()}
        return dump_json(description, indent=None)

    def commit(self, before_commit: BeforeCommit) -> Marker:
        with _timed(self._stage_s, "write"):
            marker = Marker(
                fingerprint=shard_fingerprint(self._plan, self._config, self.scale),
                record=self._writer.commit(),
                num_photos=len(self._plan.photos),
                num_enlarged=self.num_enlarged,
                failures=tuple(self.failures),
                skipped=tuple(self.skipped),
                statistics=self._statistics,
            )
            before_commit()  # again, because the run may have ended during the upload of the tar
            marker.write(self._marker_path)
        return marker

    def abort(self) -> None:
        self._writer.abort()


@contextlib.contextmanager
def _timed(stage_s: dict[str, float], stage: str) -> Iterator[None]:
    start = perf_counter()
    try:
        yield
    finally:
        stage_s[stage] += perf_counter() - start
