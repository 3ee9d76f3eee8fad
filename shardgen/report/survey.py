"""Samples of a scale, read back and measured: all of them, or as many as are asked for, spread evenly."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2

from shardgen.report.measures import aliasing, brightness, flatness, image_hash, sharpness
from shardgen.shard.job import Progress
from srshards.errors import ReportedError, RunError
from srshards.format import FormatError, Manifest, ShardRecord
from srshards.imaging.luma import luma_full_range
from srshards.imaging.pixels import Pixels
from srshards.process.resources import available_cpus
from srshards.shards.stored_samples import StoredSample, in_advance, stored_samples
from srshards.shards.subset import evenly_spaced
from srshards.storage.threads import map_in_threads


@dataclass(frozen=True)
class Measured:
    """A sample and what `measures` says of its HR. `psnr` is None where `up` equals HR."""

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
    aliasing: float | None  # None where LR is made by a recipe
    hash: int


@dataclass
class Survey:
    """What was measured of a scale, in the order of its shards. `damages` are (what, reason) of all that was not."""

    manifest: Manifest
    num_samples: int  # of the scale
    measured: list[Measured] = field(default_factory=list)
    damages: list[tuple[str, str]] = field(default_factory=list)

    def note(self, sample: StoredSample, error: RunError) -> None:
        """What was measured and cannot be shown, once."""
        if (damage := (f"sample {sample.key}", str(error))) not in self.damages:
            self.damages.append(damage)


def survey(manifest: Manifest, limit: int, report: Callable[[Progress], None]) -> Survey:
    """Measure up to `limit` samples of a scale. What is damaged is named, and the others are measured all the same.

    `report` is told of each sample.
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
            return loaded, _measure(loaded, manifest, by_name[loaded.tar.name.removesuffix(".tar")])
        except RunError as error:
            return loaded, str(error)

    cv2.setNumThreads(0)  # there is a thread for each CPU already
    for future in map_in_threads(measure, in_advance(_chosen(found, limit), load, manifest.folder), available_cpus()):
        sample, result = future.result()
        if isinstance(result, Measured):
            found.measured.append(result)
        else:
            found.damages.append((f"sample {sample.key}", result))
        report(Progress(1, isinstance(result, str), sum(member.size for member in sample.members.values())))
    return found


def num_to_measure(manifest: Manifest, limit: int) -> int:
    return min(limit, sum(record.samples for record in manifest.shards))


def _chosen(found: Survey, limit: int) -> Iterator[StoredSample]:
    """Up to `limit` samples of the scale, spread evenly. Shards that cannot be read are damages."""
    for record, places in evenly_spaced(found.manifest.shards, limit):
        try:
            samples = _samples_of(found.manifest, record)
        except (ReportedError, FormatError) as error:
            found.damages.append((f"shard {record.name}", str(error)))
            continue
        yield from (samples[place] for place in places)


def _samples_of(manifest: Manifest, record: ShardRecord) -> list[StoredSample]:
    samples = stored_samples(manifest.folder, record.name)
    if len(samples) != record.samples:
        raise RunError(f"{record.name} has {len(samples)} samples and not {record.samples}, as the manifest says")
    return samples


def _measure(sample: StoredSample, manifest: Manifest, record: ShardRecord) -> Measured:
    described = sample.describe()
    grey = luma_full_range(image_of(sample, "hr", manifest))
    settings: dict[str, Any] = manifest.raw["settings"]
    plain = not settings.get("degradation")
    try:
        aliased = aliasing(grey, manifest.scale, described["method"]) if plain else None
    except KeyError:
        raise RunError(
            f"{sample.tar}: {sample.key}.json names a method that is none: {described['method']!r}"
        ) from None
    psnr = described.get("psnr_up_db")
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
    )


def image_of(sample: StoredSample, name: str, manifest: Manifest) -> Pixels:
    """An image of a sample. RunError when it is damaged, or not of the size that the manifest says."""
    pixels = sample.image(name)
    edge = manifest.hr_size // (manifest.scale if name.startswith("lr") else 1)
    if pixels.shape != (edge, edge, 3):
        size = " x ".join(map(str, pixels.shape))
        raise RunError(f"{sample.tar}: {sample.key}.{name} is {size}, and not {edge} x {edge} x 3")
    return pixels
