"""What of a plan is on the disk already, what must be made, and what no longer belongs there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shardgen.config import Config
from shardgen.format import MANIFEST_NAME, SHARD_FILE, scale_folder
from shardgen.marker import Marker, read_marker
from shardgen.plan import ShardPlan
from shardgen.shard_job import ShardTask, shard_fingerprint

SHARD_FILE_KINDS = ("json", "tar", "idx")  # the marker first: while it stands, the others count


@dataclass(frozen=True)
class ScaleInventory:
    """One scale's folder: markers of the shards that can stay, names of those to make and of those to remove.

    A shard that stands there with other settings or photos is in both of the latter.
    """

    scale: int
    folder: Path
    kept: dict[str, Marker]
    to_make: frozenset[str]
    stale: frozenset[str]

    def remove_stale(self) -> None:
        """Make the folder hold nothing but kept shards. Its manifest goes first: it no longer tells the truth."""
        if not (self.to_make or self.stale):
            return
        (self.folder / MANIFEST_NAME).unlink(missing_ok=True)
        for name in shard_names(self.folder) - self.kept.keys():
            remove_shard(self.folder, name)


def take_inventory(shards: Sequence[ShardPlan], config: Config) -> list[ScaleInventory]:
    return [_of_scale(shards, config, scale) for scale in config.scales]


def open_tasks(shards: Sequence[ShardPlan], inventories: Iterable[ScaleInventory], config: Config) -> list[ShardTask]:
    """A task for every shard that some scale lacks, the largest first, so that no worker ends long after the others."""
    inventories = list(inventories)
    tasks = []
    for shard in shards:
        scales = tuple(inventory.scale for inventory in inventories if shard.name in inventory.to_make)
        if scales:
            tasks.append(ShardTask(shard, scales, config))
    return sorted(tasks, key=lambda task: len(task.plan.photos), reverse=True)


def shard_names(folder: Path) -> set[str]:
    """Names of the shards of which any file is in the folder."""
    matches = (SHARD_FILE.fullmatch(path.name) for path in folder.glob("*"))
    return {match["name"] for match in matches if match}


def remove_shard(folder: Path, name: str) -> None:
    for kind in SHARD_FILE_KINDS:
        (folder / f"{name}.{kind}").unlink(missing_ok=True)


def _of_scale(shards: Sequence[ShardPlan], config: Config, scale: int) -> ScaleInventory:
    folder = config.output / scale_folder(scale)
    kept = {}
    for shard in shards:
        marker = read_marker(folder / f"{shard.name}.json")
        if marker and marker.fingerprint == shard_fingerprint(shard, config, scale) and _is_whole(folder, marker):
            kept[shard.name] = marker
    finished = {path.stem for path in folder.glob("*.json") if SHARD_FILE.fullmatch(path.name)}
    return ScaleInventory(
        scale=scale,
        folder=folder,
        kept=kept,
        to_make=frozenset(shard.name for shard in shards) - kept.keys(),
        stale=frozenset(finished) - kept.keys(),
    )


def _is_whole(folder: Path, marker: Marker) -> bool:
    """Whether tar and index stand beside the marker. Only `verify` reads what is in them."""
    if marker.record is None:
        return True
    try:
        tar_bytes = (folder / f"{marker.record.name}.tar").stat().st_size
        return tar_bytes == marker.record.bytes and (folder / f"{marker.record.name}.idx").stat().st_size > 0
    except OSError:
        return False
