"""Generate a folder of shards from photos or pairs: the steps of a run, in order."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from shardgen.engines.base import Engine
from shardgen.generate.card import write_cards
from shardgen.generate.inputs import Inputs
from shardgen.generate.inventory import ScaleInventory, open_shards_message, outstanding_tasks, take_inventory
from shardgen.generate.manifest import build_manifest, write_manifest
from shardgen.generate.progress import ProgressDisplay
from shardgen.planning.config import Config
from shardgen.planning.plan import Counts, ShardPlan, expected_sample_bytes, plan_shards, plan_validation
from shardgen.planning.sources import Source
from shardgen.planning.tile_counts import estimate_tiles
from shardgen.shard.job import ShardTask, build_shard
from shardgen.shard.marker import Marker
from shardgen.shard.stages import STAGES
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

    inputs: Inputs
    shards: tuple[ShardPlan, ...]
    inventories: tuple[ScaleInventory, ...]
    tasks: tuple[ShardTask, ...]
    samples_per_photo: Mapping[str, float]  # by split; estimates for tiles
    free_bytes: int | None  # None: an object store, which has no limit

    @property
    def config(self) -> Config:
        return self.inputs.config

    def photos_of(self, split: str) -> int:
        return sum(len(shard.photos) for shard in self.shards if shard.split == split)

    @property
    def photos_to_process(self) -> int:
        """Number of photos in the shards to build."""
        return sum(len(task.plan.photos) for task in self.tasks)

    def samples_to_build(self, scale: int) -> int:
        """Return the number of samples to build at a scale; an estimate for tiles."""
        return round(sum(self.expected_samples(task) for task in self.tasks if scale in task.scales))

    def expected_samples(self, task: ShardTask) -> float:
        return len(task.plan.photos) * self.samples_per_photo[task.plan.split]

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
    inputs: Inputs
    outdated_cards: Sequence[Address] = ()

    @property
    def num_samples(self) -> int:
        return sum(manifest["totals"]["samples"] for manifest in self.manifests.values())

    @property
    def failures(self) -> list[dict[str, str]]:
        """The failed photos (`path`, `reason`, maybe `split`), each listed once over all scales."""
        found = [failure for manifest in self.manifests.values() for failure in manifest["failures"]]
        by_photo = {(failure["path"], failure.get("split", "")): failure for failure in found}
        return [by_photo[photo] for photo in sorted(by_photo)]

    @property
    def num_photos(self) -> int:
        return max(int(manifest["totals"]["photos"]) for manifest in self.manifests.values())

    @property
    def profiles(self) -> dict[str, Any]:
        """The colour profiles of the photos, as in a manifest; they are the same at all scales."""
        profiles: dict[str, Any] = next(iter(self.manifests.values()))["profiles"]
        return profiles


def prepare(inputs: Inputs) -> Preparation:
    """Plan the shards and compare the plan with the output folder, without changing anything."""
    config = inputs.config
    per_photo: dict[str, float] = {}
    samples, counts = _expected_samples(inputs, "train", inputs.listing.photos)
    shards = plan_shards(inputs.listing.photos, config, samples, counts)
    per_photo |= {"train": samples, "val": samples}
    if inputs.val is not None:
        samples, counts = _expected_samples(inputs, "val", inputs.val.photos)
        shards += plan_validation(inputs.val.photos, config, samples, counts)
        per_photo["val"] = samples
    inventories = take_inventory(shards, config)
    tasks = outstanding_tasks(shards, inventories, config)
    free_bytes = _free_bytes(config.output, inventories)
    return Preparation(inputs, tuple(shards), tuple(inventories), tuple(tasks), per_photo, free_bytes)


def _expected_samples(inputs: Inputs, split: str, photos: Sequence[Source]) -> tuple[float, Counts]:
    """Return the expected number of samples per photo, and a function that counts them where needed."""
    if inputs.config.fit != "tile":
        return 1.0, lambda photos: None
    sizes_of = partial(inputs.headers.sizes, inputs.config.root(split))
    tiles = estimate_tiles(photos, inputs.config, sizes_of)
    return tiles.per_photo, tiles.counts


def generate(inputs: Inputs, engine: Engine, confirm: Callable[[Preparation], None]) -> Outcome:
    """Build the missing shards.

    `confirm` is called with the preparation before anything is changed; it raises an exception to stop the run. Raises
    UsageError when another run is writing to the output, RunError when the disk is too small or the work fails.
    Finished shards are then kept, and no partial files remain.
    """
    config = inputs.config
    with locked(config.output):
        preparation = prepare(inputs)
        _refuse_open_shards(preparation)
        _refuse_full_disk(preparation)
        _refuse_full_scratch(preparation, engine.num_workers)
        confirm(preparation)
        for inventory in preparation.inventories:
            inventory.remove_stale()
        markers = {inventory.scale: dict(inventory.kept) for inventory in preparation.inventories}
        work = _build(preparation, engine, markers) if preparation.tasks else Work()
        manifests = {scale: build_manifest(markers[scale], config, scale) for scale in config.scales}
        for scale, manifest in manifests.items():
            write_manifest(config.output / scale_folder(scale), manifest)
        outdated_cards = write_cards(config.output, manifests)
        outcome = Outcome(
            kept=sum(len(inventory.kept) for inventory in preparation.inventories),
            built=sum(len(task.scales) for task in preparation.tasks),
            removed=sum(len(inventory.stale) for inventory in preparation.inventories),
            manifests=manifests,
            work=work,
            inputs=inputs,
            outdated_cards=outdated_cards,
        )
        if preparation.tasks:
            write_bytes(config.output / STATS_NAME, dump_json(_stats(outcome)))
        return outcome


def _build(preparation: Preparation, engine: Engine, markers: dict[int, dict[str, Marker]]) -> Work:
    """Run the tasks and add their markers to `markers`. Temporary files are removed even on errors."""
    stage_s: Counter[str] = Counter()
    try:
        with ProgressDisplay(preparation.photos_to_process, f"{preparation.config.noun}s") as progress:
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
            "free; free some disk space, or pass another --output, a smaller --sample or --codec tlc"
        )


def _refuse_full_scratch(preparation: Preparation, num_workers: int) -> None:
    """Raise RunError if the shards being built do not fit on the scratch disk, before their upload to a store."""
    if preparation.free_bytes is not None or not preparation.tasks:
        return
    config = preparation.config
    largest = max(
        preparation.expected_samples(task) * sum(expected_sample_bytes(config, scale) for scale in task.scales)
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
        "excluded": outcome.inputs.excluded.num_photos if outcome.inputs.excluded else 0,
        "avg_processing_time": round(sum(work.stage_s.values()) / max(work.photos, 1), 6),
        "wall_time": round(work.wall_s, 3),
        "photos_per_second": round(work.photos / max(work.wall_s, 1e-9), 2),
        "stage_seconds": {stage: round(work.stage_s.get(stage, 0.0), 3) for stage in STAGES},
        "shards": {"made": outcome.built, "kept": outcome.kept, "removed": outcome.removed},
    }
