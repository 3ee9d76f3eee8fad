"""Create folders of any number of shards, with real manifest, markers and sizes; the tars are sparse files."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.plan_million import synthetic_photos
from shardgen.generate.manifest import build_manifest, write_manifest
from shardgen.planning.config import Config
from shardgen.planning.plan import ShardPlan
from shardgen.shard.job import shard_fingerprint
from shardgen.shard.marker import Marker
from shardgen.shard.statistics import Statistics
from srshards.format import ShardRecord, shard_name

SCALE = 4
SAMPLES_PER_SHARD = 157  # of 512 px at 4x: 256 MB, the default
SHARD_BYTES = 256_000_000
_INDEX_BYTES = 165 * SAMPLES_PER_SHARD
_PHOTOS_PER_SHARD = 10  # few, because hashing their list is not part of the measurement


def config_for(output: Path) -> Config:
    return Config(input=Path("photos"), output=output, scales=(SCALE,))


def synthetic_plans(count: int) -> list[ShardPlan]:
    """Return plans of shards for training, and one for validation."""
    photos = synthetic_photos(count * _PHOTOS_PER_SHARD)
    return [
        ShardPlan(
            *(("train", number) if number < count - 1 else ("val", 0)),
            tuple(photos[number * _PHOTOS_PER_SHARD : (number + 1) * _PHOTOS_PER_SHARD]),
        )
        for number in range(count)
    ]


def markers(plans: Iterable[ShardPlan], config: Config) -> Iterator[Marker]:
    """Yield markers as the generator writes them for finished shards."""
    for plan in plans:
        record = ShardRecord(
            shard_name(plan.split, plan.number),
            plan.split,
            SAMPLES_PER_SHARD,
            SHARD_BYTES,
            hashlib.sha256(plan.name.encode()).hexdigest(),
        )
        statistics = Statistics(
            SAMPLES_PER_SHARD,
            SAMPLES_PER_SHARD * 512**2,
            [SAMPLES_PER_SHARD * 512**2 * 128] * 3,
            [SAMPLES_PER_SHARD * 512**2 * 128**2] * 3,
            Counter({photo.class_name: 20 for photo in plan.photos}),
            SAMPLES_PER_SHARD * 278_919,
            17.9985,
            45.3298,
        )
        yield Marker(shard_fingerprint(plan, config, SCALE), record, SAMPLES_PER_SHARD, 23, (), (), statistics)


def make_folder(output: Path, count: int, with_markers: bool) -> Path:
    """Write a folder of sparse shards that passes all checks but opening a shard; return the folder of the scale."""
    config, plans = config_for(output), synthetic_plans(count)
    folder = output / f"scale_{SCALE}x"
    folder.mkdir(parents=True)
    made = list(markers(plans, config))
    for plan, marker in zip(plans, made, strict=True):
        for kind, size in (("tar", SHARD_BYTES), ("idx", _INDEX_BYTES)):
            with open(folder / f"{plan.name}.{kind}", "wb") as file:
                file.truncate(size)
        if with_markers:
            marker.write(folder / f"{plan.name}.json")
    write_manifest(
        folder, build_manifest({plan.name: one for plan, one in zip(plans, made, strict=True)}, config, SCALE)
    )
    return folder
