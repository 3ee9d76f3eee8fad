"""Generate a folder of shards from a folder of photos: the steps of a run, in order."""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardgen.engines.base import Engine
from shardgen.generate.card import write_cards
from shardgen.generate.inventory import ScaleInventory, open_shards_message, outstanding_tasks, take_inventory
from shardgen.generate.manifest import build_manifest, write_manifest
from shardgen.generate.progress import ProgressDisplay
from shardgen.planning.config import Config
from shardgen.planning.exclusion import Exclusion, leave_out
from shardgen.planning.plan import ShardPlan, expected_sample_bytes, plan_shards
from shardgen.planning.sources import Listing, list_photos
from shardgen.planning.tile_counts import estimate_tiles
from shardgen.shard.job import STAGES, ShardTask, build_shard
from shardgen.shard.marker import Marker
from srshards.errors import RunError, UsageError
from srshards.format import Address, dump_json, scale_folder
from srshards.storage.output_lock import locked
from srshards.storage.reader_lock import has_readers
from srshards.storage.scratch import scratch_root
from srshards.storage.store import storage_of, write_bytes
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import plural

STATS_NAME = "processing_stats.json"


@dataclass(frozen=True)
class Preparation:
    """The plan of a run, known before the first photo is decoded: existing and missing shards, and the space needed."""

    config: Config
    listing: Listing
    shards: tuple[ShardPlan, ...]
    inventories: tuple[ScaleInventory, ...]
    tasks: tuple[ShardTask, ...]
    samples_per_photo: float
    free_bytes: int | None  # None: an object store, which has no limit
    excluded: Exclusion | None = None

    @property
    def num_photos(self) -> int:
        """Number of photos in the sample (`--sample`)."""
        return sum(len(shard.photos) for shard in self.shards)

    def photos_of(self, split: str) -> int:
        return sum(len(shard.photos) for shard in self.shards if shard.split == split)

    @property
    def photos_to_process(self) -> int:
        """Number of photos in the shards to build."""
        return sum(len(task.plan.photos) for task in self.tasks)

    def samples_to_build(self, scale: int) -> int:
        """Return the number of samples to build at a scale; an estimate for tiles."""
        photos = sum(len(task.plan.photos) for task in self.tasks if scale in task.scales)
        return round(photos * self.samples_per_photo)

    @property
    def bytes_to_build(self) -> int:
        """Expected size of the shards to build, at all scales."""
        scales = self.config.scales
        return round(sum(self.samples_to_build(s) * expected_sample_bytes(self.config, s) for s in scales))


@dataclass(frozen=True)
class Work:
    """The work of this run: photos, how many of them failed, wall-clock time, and all workers' time by stage (s)."""

    photos: int = 0
    failures: int = 0
    wall_s: float = 0.0
    stage_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The result of a run. Numbers of shards are sums over all scales.

    `outdated_cards` are dataset cards that describe earlier shards and were kept because a user has edited them.
    """

    kept: int
    built: int
    removed: int
    manifests: dict[int, dict[str, Any]]
    work: Work
    outdated_cards: Sequence[Address] = ()
    excluded: Exclusion | None = None

    @property
    def num_samples(self) -> int:
        return sum(manifest["totals"]["samples"] for manifest in self.manifests.values())

    @property
    def failures(self) -> list[dict[str, str]]:
        """The failed photos (`path`, `reason`), each listed once over all scales."""
        by_path = {f["path"]: f for manifest in self.manifests.values() for f in manifest["failures"]}
        return [by_path[path] for path in sorted(by_path)]

    @property
    def profiles(self) -> dict[str, Any]:
        """The colour profiles of the photos, as in a manifest; they are the same at all scales."""
        profiles: dict[str, Any] = next(iter(self.manifests.values()))["profiles"]
        return profiles


def prepare(config: Config, exclude: Path | None = None) -> Preparation:
    """List the photos, plan the shards and compare the plan with the output folder, without changing anything.

    Photos listed in the file `exclude` are left out.
    """
    listing, excluded = list_photos(config.input), None
    if exclude is not None:
        listing, excluded = leave_out(listing, exclude)
    if config.fit == "tile":
        tiles = estimate_tiles(listing.photos, config)
        samples_per_photo = tiles.per_photo
        shards = plan_shards(listing.photos, config, samples_per_photo, tiles.counts)
    else:
        samples_per_photo = 1.0
        shards = plan_shards(listing.photos, config)
    inventories = take_inventory(shards, config)
    tasks = outstanding_tasks(shards, inventories, config)
    return Preparation(
        config,
        listing,
        tuple(shards),
        tuple(inventories),
        tuple(tasks),
        samples_per_photo,
        _free_bytes(config.output, inventories),
        excluded,
    )


def generate(
    config: Config, engine: Engine, confirm: Callable[[Preparation], None], exclude: Path | None = None
) -> Outcome:
    """Build the missing shards from the photos not listed in the file `exclude`.

    `confirm` is called with the preparation before anything is changed; it raises an exception to stop the run. Raises
    UsageError when the input has no photos or another run is writing to the output, RunError when the disk is too small
    or the work fails. Finished shards are then kept, and no partial files remain.
    """
    with locked(config.output):
        preparation = prepare(config, exclude)
        _refuse_open_shards(preparation)
        _refuse_full_disk(preparation)
        _refuse_full_scratch(preparation, engine.num_workers)
        confirm(preparation)
        for inventory in preparation.inventories:
            inventory.remove_stale()
        markers = {inventory.scale: dict(inventory.kept) for inventory in preparation.inventories}
        work = _build(preparation, engine, markers) if preparation.tasks else Work()
        manifests = {scale: build_manifest(markers[scale].values(), config, scale) for scale in config.scales}
        for scale, manifest in manifests.items():
            write_manifest(config.output / scale_folder(scale), manifest)
        outdated_cards = write_cards(config.output, manifests)
        outcome = Outcome(
            kept=sum(len(inventory.kept) for inventory in preparation.inventories),
            built=sum(len(task.scales) for task in preparation.tasks),
            removed=sum(len(inventory.stale) for inventory in preparation.inventories),
            manifests=manifests,
            work=work,
            outdated_cards=outdated_cards,
            excluded=preparation.excluded,
        )
        if preparation.tasks:
            write_bytes(config.output / STATS_NAME, dump_json(_stats(outcome)))
        return outcome


def _build(preparation: Preparation, engine: Engine, markers: dict[int, dict[str, Marker]]) -> Work:
    """Run the tasks and add their markers to `markers`. Temporary files are removed even on errors."""
    stage_s: Counter[str] = Counter()
    try:
        with ProgressDisplay(preparation.photos_to_process) as progress:
            for result in engine.run(preparation.tasks, build_shard, progress.report):
                stage_s.update(result.stage_s)
                for scale, marker in result.markers.items():
                    markers[scale][result.name] = marker
    finally:
        folders = [inventory.folder for inventory in preparation.inventories]
        storage_of(preparation.config.output).remove_unfinished(folders)
    return Work(progress.done.photos, progress.done.failures, progress.elapsed_s, dict(stage_s))


def _free_bytes(output: Address, inventories: Sequence[ScaleInventory]) -> int | None:
    """Return the free space for the output after deletion of stale shards; None for an object store."""
    free = storage_of(output).free_bytes(inventories[0].folder)
    return None if free is None else free + sum(inventory.stale_bytes for inventory in inventories)


def _refuse_open_shards(preparation: Preparation) -> None:
    for inventory in preparation.inventories:
        if inventory.stale and has_readers(inventory.folder):
            raise UsageError(f"{open_shards_message(inventory.folder, len(inventory.stale))}, or pass another --output")


def _refuse_full_disk(preparation: Preparation) -> None:
    need, free = preparation.bytes_to_build, preparation.free_bytes
    if free is not None and need > free:
        raise RunError(
            f"the shards need about {format_bytes(need)}, but {preparation.config.output} has {format_bytes(free)} "
            "free; free some disk space, or pass another --output, a smaller --sample or --codec webp"
        )


def _refuse_full_scratch(preparation: Preparation, num_workers: int) -> None:
    """Raise RunError if the shards being built do not fit on the scratch disk, before their upload to a store."""
    if preparation.free_bytes is not None or not preparation.tasks:
        return
    config, samples = preparation.config, preparation.samples_per_photo
    largest = max(
        len(task.plan.photos) * samples * sum(expected_sample_bytes(config, scale) for scale in task.scales)
        for task in preparation.tasks
    )
    need = largest * min(num_workers, len(preparation.tasks))
    free = shutil.disk_usage(scratch_root()).free
    if need > free:
        raise RunError(
            f"{plural(num_workers, 'worker')} would use about {format_bytes(round(need))} of scratch space to build "
            f"shards, but {scratch_root()} has {format_bytes(free)} free; set TMPDIR to a folder on a larger disk, or "
            "pass fewer --workers or a smaller --shard-bytes"
        )


def _stats(outcome: Outcome) -> dict[str, Any]:
    """Return the run's timings in s: `avg_processing_time` and stages are worker time, `wall_time` is elapsed time."""
    work = outcome.work
    return {
        "total_processed": work.photos,
        "total_failed": work.failures,
        "excluded": outcome.excluded.num_photos if outcome.excluded else 0,
        "avg_processing_time": round(sum(work.stage_s.values()) / max(work.photos, 1), 6),
        "wall_time": round(work.wall_s, 3),
        "photos_per_second": round(work.photos / max(work.wall_s, 1e-9), 2),
        "stage_seconds": {stage: round(work.stage_s.get(stage, 0.0), 3) for stage in STAGES},
        "shards": {"made": outcome.built, "kept": outcome.kept, "removed": outcome.removed},
    }
