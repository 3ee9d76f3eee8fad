"""Measure the samples of a scale, or an evenly spaced subset of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2

from shardgen.pairs.check import PairCheck
from shardgen.pairs.summary import stored_check
from shardgen.report.measures import aliasing, brightness, flatness, image_hash, sharpness
from shardgen.report.overlaps import Features, find_features
from shardgen.shard.job import Progress
from srshards.errors import ReportedError, RunError
from srshards.format import FormatError, Manifest, ShardRecord
from srshards.imaging.luma import luma_full_range
from srshards.imaging.pixels import Pixels
from srshards.process.resources import available_cpus
from srshards.shards.stored_samples import StoredSample, map_in_order, stored_samples
from srshards.shards.subset import evenly_spaced
from srshards.storage.threads import map_in_threads


@dataclass(frozen=True)
class Measured:
    """A sample and the measurements of its HR image. `psnr` (of `up`, in dB) is None if `up` equals HR.

    `is_excludable` is False for photos of `--val`, to which `--exclude` does not apply. Their paths are relative to
    that folder, so they may be those of training photos.
    """

    sample: StoredSample
    scale: int
    split: str
    source: str
    class_name: str
    box: tuple[int, ...]
    psnr: float | None
    brightness: float
    sharpness: float
    flatness: float
    aliasing: float | None  # None if LR is degraded by a recipe, or given
    hash: int
    enlargement: float = 1.0  # factor by which the photo was upscaled to HR; at most 1 if it was not
    pair: PairCheck | None = None  # of HR and LR if LR was given
    is_excludable: bool = True
    features: Features | None = None  # None if train and val are not compared

    @property
    def photo(self) -> tuple[str, bool]:
        """What identifies the photo of the sample."""
        return self.source, self.is_excludable


@dataclass
class Survey:
    """The measured samples of a scale, in shard order. `damages` are (sample or shard, reason)."""

    manifest: Manifest
    num_samples: int  # of the scale
    measured: list[Measured] = field(default_factory=list)
    damages: list[tuple[str, str]] = field(default_factory=list)

    def note(self, sample: StoredSample, error: RunError) -> None:
        """Record that a measured sample cannot be shown, unless its damage is already listed."""
        if (damage := (f"sample {sample.key}", str(error))) not in self.damages:
            self.damages.append(damage)


def survey(manifest: Manifest, limit: int, report: Callable[[Progress], None], compares_splits: bool = False) -> Survey:
    """Measure up to `limit` samples of a scale; damaged ones are listed in `Survey.damages`.

    `report` is called after each sample. With `compares_splits`, the samples get features.
    """
    found = Survey(manifest, sum(record.samples for record in manifest.shards))
    by_name = {record.name: record for record in manifest.shards}

    def load(sample: StoredSample) -> StoredSample | tuple[StoredSample, str]:
        try:
            return sample.load()
        except RunError as error:
            return sample, str(error)

    def measure(loaded: StoredSample | tuple[StoredSample, str]) -> tuple[StoredSample, Measured | str]:
        if isinstance(loaded, tuple):
            return loaded
        try:
            record = by_name[loaded.tar.name.removesuffix(".tar")]
            return loaded, _measure(loaded, manifest, record, compares_splits)
        except RunError as error:
            return loaded, str(error)

    cv2.setNumThreads(0)  # there is a thread for each CPU already
    loaded_samples = map_in_order(_selected(found, limit), load, manifest.folder)
    for future in map_in_threads(measure, loaded_samples, available_cpus()):
        sample, result = future.result()
        if isinstance(result, Measured):
            found.measured.append(result)
        else:
            found.damages.append((f"sample {sample.key}", result))
        report(Progress(1, isinstance(result, str), sum(member.size for member in sample.members.values())))
    return found


def num_to_measure(manifest: Manifest, limit: int) -> int:
    return min(limit, sum(record.samples for record in manifest.shards))


def _selected(found: Survey, limit: int) -> Iterator[StoredSample]:
    """Yield up to `limit` samples of the scale, evenly spaced; add unreadable shards to `damages`."""
    for record, positions in evenly_spaced(found.manifest.shards, limit):
        try:
            samples = _samples_of(found.manifest, record)
        except (ReportedError, FormatError) as error:
            found.damages.append((f"shard {record.name}", str(error)))
            continue
        yield from (samples[position] for position in positions)


def _samples_of(manifest: Manifest, record: ShardRecord) -> list[StoredSample]:
    samples = stored_samples(manifest.folder, record.name)
    if len(samples) != record.samples:
        raise RunError(f"expected {record.samples} samples as in the manifest, found {len(samples)}")
    return samples


def _measure(sample: StoredSample, manifest: Manifest, record: ShardRecord, compares_splits: bool) -> Measured:
    described = sample.describe()
    grey = luma_full_range(image_of(sample, "hr", manifest))
    settings: dict[str, Any] = manifest.raw["settings"]
    try:
        aliased = (
            None
            if settings.get("degradation") or settings.get("pairs")
            else aliasing(grey, manifest.scale, described["method"])
        )
    except KeyError:
        raise RunError(f"{sample.tar}: {sample.key}.json: unknown method {described['method']!r}") from None
    psnr, pair = described.get("psnr_up_db"), described.get("pair")
    return Measured(
        sample=StoredSample(sample.key, sample.tar, sample.members),
        scale=manifest.scale,
        split=record.split,
        source=described["source"],
        class_name=described["class"],
        box=tuple(described["box"]),
        psnr=None if psnr is None else float(psnr),
        brightness=brightness(grey),
        sharpness=sharpness(grey),
        flatness=flatness(grey),
        aliasing=aliased,
        hash=image_hash(grey),
        enlargement=manifest.hr_size / max(min(described["box"][2:]), 1),
        pair=stored_check(pair, manifest.scale, f"{sample.tar}: {sample.key}.json") if pair is not None else None,
        is_excludable=record.split == "train" or settings.get("val_fraction", 0.0) is not None,
        features=find_features(grey) if compares_splits else None,
    )


def image_of(sample: StoredSample, name: str, manifest: Manifest) -> Pixels:
    """Return an image of a sample. RunError when it is damaged or does not have the manifest's size."""
    pixels = sample.image(name)
    edge = manifest.hr_size // (manifest.scale if name.startswith("lr") else 1)
    if pixels.shape != (edge, edge, 3):
        size = " x ".join(map(str, pixels.shape))
        raise RunError(f"{sample.tar}: {sample.key}.{name}: expected {edge} x {edge} x 3, found {size}")
    return pixels
