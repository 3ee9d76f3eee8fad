"""Compare a plan with the output folder: shards to keep, to build and to delete."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardgen.degradation.differences import recipe_differences
from shardgen.planning.config import Config, settings_of
from shardgen.planning.plan import ShardPlan
from shardgen.shard.job import ShardTask, shard_fingerprint
from shardgen.shard.marker import Marker, read_marker
from srshards.format import FORMAT_VERSION, MANIFEST_NAME, SHARD_FILE, Address, FormatError, load_manifest, scale_folder
from srshards.storage.store import list_files, read_bytes, remove, remove_many, storage_of
from srshards.terminal.text import plural

SHARD_FILE_KINDS = ("json", "tar", "idx")  # the marker first: while it exists, the others are valid
_MARKERS_AT_ONCE = 32


@dataclass(frozen=True)
class ScaleInventory:
    """One scale's folder: markers of the shards to keep, names of the shards to build and of those to delete.

    A shard that exists with other settings or photos is both in `to_build` and in `stale`. `stale_bytes` is the size of
    the files to delete. If shards are stale, `changed` lists the settings that differ from those of the finished set
    as (old, new) by name; a larger sample does not count.
    """

    scale: int
    folder: Address
    kept: dict[str, Marker]
    to_build: frozenset[str]
    stale: frozenset[str]
    stale_bytes: int
    changed: Mapping[str, tuple[Any, Any]]

    def remove_stale(self) -> None:
        """Delete all shards but those to keep, after the manifest, which would list deleted shards."""
        if not (self.to_build or self.stale):
            return
        remove(self.folder / MANIFEST_NAME)
        remove_shards(self.folder, shard_names(self.folder) - self.kept.keys())


def open_shards_message(folder: Address, num_shards: int) -> str:
    """Return the error message for shards to replace or delete in a folder that has readers."""
    return (
        f"{folder} is open in another process, probably a training, and this run would replace or delete "
        f"{plural(num_shards, 'shard')} in it; wait until that process has exited"
    )


def take_inventory(shards: Sequence[ShardPlan], config: Config) -> list[ScaleInventory]:
    """Compare the plan with the folder of each scale."""
    return [_scale_inventory(shards, config, scale) for scale in config.scales]


def outstanding_tasks(
    shards: Sequence[ShardPlan], inventories: Iterable[ScaleInventory], config: Config
) -> list[ShardTask]:
    """Return a task for each shard missing at any scale, largest first, so that workers finish at similar times."""
    inventories = list(inventories)
    tasks = []
    for shard in shards:
        scales = tuple(inventory.scale for inventory in inventories if shard.name in inventory.to_build)
        if scales:
            tasks.append(ShardTask(shard, scales, config))
    return sorted(tasks, key=lambda task: len(task.plan.photos), reverse=True)


def shard_names(folder: Address) -> set[str]:
    """Return the names of all shards with at least one file in the folder."""
    matches = (SHARD_FILE.fullmatch(name) for name in list_files(folder))
    return {match["name"] for match in matches if match}


def remove_shards(folder: Address, names: Iterable[str]) -> None:
    """Delete all files of the shards."""
    names = list(names)
    for kind in SHARD_FILE_KINDS:
        remove_many(folder, [f"{name}.{kind}" for name in names])


def _scale_inventory(shards: Sequence[ShardPlan], config: Config, scale: int) -> ScaleInventory:
    folder = config.output / scale_folder(scale)
    sizes = list_files(folder)
    matches = [match for match in map(SHARD_FILE.fullmatch, sizes) if match]
    finished = {match["name"] for match in matches if match["kind"] == "json"}
    planned = [shard for shard in shards if shard.name in finished]
    kept = {}
    paths = [folder / f"{shard.name}.json" for shard in planned]
    for shard, marker in zip(planned, storage_of(folder).map(read_marker, paths, _MARKERS_AT_ONCE), strict=True):
        if marker and marker.fingerprint == shard_fingerprint(shard, config, scale) and _is_complete(marker, sizes):
            kept[shard.name] = marker
    names = frozenset(shard.name for shard in shards)
    stale = frozenset(finished - kept.keys() | {match["name"] for match in matches} - names)
    return ScaleInventory(
        scale=scale,
        folder=folder,
        kept=kept,
        to_build=names - kept.keys(),
        stale=stale,
        stale_bytes=sum(sizes[match.string] for match in matches if match["name"] in stale),
        changed=_changed_settings(folder, config.settings(scale)) if stale else {},
    )


def _changed_settings(folder: Address, settings: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    try:
        manifest = load_manifest(folder, read_bytes).raw
    except (FormatError, FileNotFoundError):  # no finished set
        return {}
    previous = {"format_version": manifest["format_version"], **settings_of(manifest)}
    settings = {"format_version": FORMAT_VERSION, **settings}
    changed = {name: (previous[name], new) for name, new in settings.items() if previous.get(name, new) != new}
    changed.pop("hr_size", None)  # follows from the size
    recipes = changed.get("degradation", (None, None))
    if all(recipes) and not recipe_differences(*recipes):  # of another name, or lists where JSON has no tuples
        del changed["degradation"]
    old, new = changed.get("sample", (0, 0))
    if isinstance(old, int | float) and old <= new:
        changed.pop("sample", None)
    return changed


def _is_complete(marker: Marker, sizes: dict[str, int]) -> bool:
    """Return whether tar and index exist and have the recorded sizes. Only `verify` reads their content."""
    if marker.record is None:
        return True
    name = marker.record.name
    return sizes.get(f"{name}.tar") == marker.record.bytes and sizes.get(f"{name}.idx", 0) > 0
