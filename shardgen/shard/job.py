"""The unit of work of every engine: build one shard, at all its scales.

A photo (or pair) is read and decoded once, and its samples are written to the tar of each scale. Pixels never leave the
process; the result is a small record.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from shardgen.pairs.summary import PairSummary
from shardgen.planning.config import Config
from shardgen.planning.plan import ShardPlan
from shardgen.planning.sources import Source
from shardgen.shard.marker import Marker, Profiles
from shardgen.shard.pair_source import PairSource
from shardgen.shard.photo_source import PhotoSource
from shardgen.shard.sample import Opened, Sample, SampleSource
from shardgen.shard.stages import StageTimes
from shardgen.shard.statistics import Statistics, psnr_up
from shardgen.shard.writer import ShardWriter
from srshards.errors import PhotoError
from srshards.format import (
    EQUAL_PSNR_DB,
    MAX_SAMPLES_PER_SHARD,
    dump_json,
    image_codec,
    image_extension,
    image_names,
    sample_key,
    scale_folder,
)
from srshards.imaging import codec
from srshards.imaging.photo import DecodedPhoto
from srshards.storage.store import remove, storage_of


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
    stage_s: StageTimes = field(default_factory=StageTimes)


def shard_fingerprint(plan: ShardPlan, config: Config, scale: int) -> str:
    """Return a hash of settings and files; an existing shard with the same hash is up to date."""
    text = f"{config.fingerprint(scale, plan.split)} {plan.name} {plan.digest(scale)}"
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
            for photo, open_photo in sample_source(task, result.stage_s).open_each(task.plan.photos):
                report(_add_photo(photo, open_photo, outputs))
            for output in outputs:
                before_commit()
                result.markers[output.scale] = output.commit(before_commit)
        except BaseException:
            for output in outputs:
                output.abort()
            raise
    return result


def sample_source(task: ShardTask, times: StageTimes) -> SampleSource:
    """Return what makes the samples of a shard."""
    if task.config.pairs is not None:
        return PairSource(task.config, task.config.pairs, task.plan.split, task.scales, times)
    return PhotoSource(task.config, task.plan.split, times)


def _add_photo(photo: Source, open_photo: Callable[[], Opened], outputs: Sequence["_ScaleOutput"]) -> Progress:
    before = sum(output.num_bytes for output in outputs)
    try:
        opened = open_photo()
    except PhotoError as reason:
        for output in outputs:
            output.failures.append((photo.path, str(reason)))
        return Progress(photos=1, failures=1)
    accepted = {output.scale: output for output in outputs if output.accepts(photo, opened)}
    for sample in opened.samples(list(accepted)):
        accepted[sample.scale].add(photo, sample)
    has_failed = any(output.has_failed(photo) for output in outputs)
    return Progress(1, has_failed, sum(output.num_bytes for output in outputs) - before)


class _ScaleOutput:
    """The output of a shard being built, at one scale."""

    def __init__(self, task: ShardTask, scale: int, staging: Path, times: StageTimes) -> None:
        self.scale = scale
        self.num_bytes = 0
        self.failures: list[tuple[str, str]] = []
        self._skipped: list[tuple[str, str]] = []
        self._num_enlarged = 0
        self._converted: Counter[str] = Counter()
        self._unusable_profiles: list[tuple[str, str]] = []
        self._plan, self._config, self._times = task.plan, task.config, times
        self._statistics = Statistics()
        self._pairs = PairSummary() if task.config.pairs else None
        folder = task.config.output / scale_folder(scale)
        self._marker_path = folder / f"{task.plan.name}.json"
        remove(self._marker_path)  # the old marker must not validate the new tar
        scale_staging = staging / scale_folder(scale)
        scale_staging.mkdir(exist_ok=True)
        self._writer = ShardWriter(folder, scale_staging, task.plan.name, task.plan.split)

    def accepts(self, photo: Source, opened: Opened) -> bool:
        """Return whether the photo's samples belong into this output, after recording why not."""
        try:
            count = opened.num_samples(self.scale)
            self._refuse_overflow(count)
        except PhotoError as reason:
            self.failures.append((photo.path, str(reason)))
            return False
        if not count:
            self._skipped.append((photo.path, f"smaller than a tile of {self._config.tile(self.scale)[0]} px"))
            return False
        self._num_enlarged += opened.is_enlarged
        self._count_profile(photo, opened.decoded)
        if self._pairs is not None and (record := opened.pair_record(self.scale)) is not None:
            self._pairs = PairSummary.total((self._pairs, PairSummary.of(photo.path, record)))
        return True

    def _count_profile(self, photo: Source, decoded: DecodedPhoto) -> None:
        if decoded.converted_from is not None:
            self._converted[decoded.converted_from] += 1
        if decoded.profile_problem is not None:
            self._unusable_profiles.append((photo.path, decoded.profile_problem))

    def has_failed(self, photo: Source) -> bool:
        """Return whether the latest failure is the photo's."""
        return bool(self.failures) and self.failures[-1][0] == photo.path

    def _refuse_overflow(self, count: int) -> None:
        """Raise PhotoError if the shard cannot hold the photo's samples, because the plan underestimated them."""
        remaining = MAX_SAMPLES_PER_SHARD - self._writer.num_samples
        if count > remaining:
            raise PhotoError(
                f"has {count:,} tiles, but its shard can hold only {remaining:,} more; pass a larger --tile-step or "
                "--size"
            )

    def add(self, photo: Source, sample: Sample) -> None:
        config, times, hr = self._config, self._times, sample.hr
        with times.timed("statistics"):
            psnr = psnr_up(hr.pixels, sample.up)
            self._statistics.add(photo.class_name, config.hr_size(self.scale) ** 2, hr.sums, psnr)
        with times.timed("encode"):
            images = [hr.pixels, *sample.lrs, *([sample.up] if config.up else [])]
            members = [
                (image_extension(name, config.codec), codec.encode(image_codec(name, config.codec), pixels))
                for name, pixels in zip(image_names(len(sample.lrs), config.up), images, strict=True)
            ]
            members.append(("json", [self._describe(photo, sample, psnr)]))
        with times.timed("write"):
            key = sample_key(self._plan.split, self._plan.number, self._writer.num_samples)
            self.num_bytes += self._writer.add(key, members)

    def _describe(self, photo: Source, sample: Sample, psnr: float | None) -> bytes:
        description = {
            "source": photo.path,
            "class": photo.class_name,
            "box": list(sample.box),
            "scale": self.scale,
            "method": self._config.method,
            "psnr_up_db": EQUAL_PSNR_DB if psnr is None else psnr,
            **sample.details,
        }
        return dump_json(description, indent=None)

    def commit(self, before_commit: BeforeCommit) -> Marker:
        with self._times.timed("write"):
            marker = Marker(
                fingerprint=shard_fingerprint(self._plan, self._config, self.scale),
                record=self._writer.commit(),
                num_photos=len(self._plan.photos),
                num_enlarged=self._num_enlarged,
                failures=tuple(self.failures),
                skipped=tuple(self._skipped),
                statistics=self._statistics,
                pairs=self._pairs,
                profiles=Profiles(self._converted, tuple(self._unusable_profiles)),
            )
            before_commit()  # again, because the run may have ended during the upload of the tar
            marker.write(self._marker_path)
        return marker

    def abort(self) -> None:
        self._writer.abort()
