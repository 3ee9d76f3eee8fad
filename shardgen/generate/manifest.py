"""Build the manifest of a scale's folder from the markers of its shards."""

from collections.abc import Iterable, Sequence
from typing import Any

from shardgen.planning.config import Config
from shardgen.shard.marker import Marker, Profiles, reason_records
from shardgen.shard.statistics import Statistics
from srshards import __version__
from srshards.format import FORMAT_VERSION, MANIFEST_NAME, SPLITS, Address, ShardRecord, dump_json
from srshards.storage.store import read_bytes, write_bytes


def build_manifest(markers: Iterable[Marker], config: Config, scale: int) -> dict[str, Any]:
    """Return the manifest: a pure function of markers and settings, so that equal runs give equal bytes."""
    return {
        "format_version": FORMAT_VERSION,
        "generator": {"name": "shardgen", "version": __version__},
        "settings": config.settings(scale),
        "fingerprint": config.fingerprint(scale),
        **manifest_content(list(markers)),
    }


def manifest_content(markers: Sequence[Marker]) -> dict[str, Any]:
    """Return the manifest's entries that depend on the shards: totals, splits, shards, failures, skipped, profiles."""
    records = sorted((m.record for m in markers if m.record), key=lambda record: record.name)
    return {
        "totals": {
            "photos": sum(m.num_photos for m in markers),
            **_sums(records),
            "enlarged": sum(m.num_enlarged for m in markers),
            "failures": sum(len(m.failures) for m in markers),
            "skipped": sum(len(m.skipped) for m in markers),
        },
        "splits": {split: _split(split, markers) for split in SPLITS},
        "shards": [record.as_dict() for record in records],
        "failures": reason_records(sorted(pair for m in markers for pair in m.failures)),
        "skipped": reason_records(sorted(pair for m in markers for pair in m.skipped)),
        "profiles": Profiles.total(m.profiles for m in markers).as_dict(),
    }


def write_manifest(folder: Address, manifest: dict[str, Any]) -> None:
    """Write the manifest unless the file already has this content."""
    path, content = folder / MANIFEST_NAME, dump_json(manifest)
    try:
        if read_bytes(path) == content:
            return
    except FileNotFoundError:
        pass
    write_bytes(path, content)


def _split(split: str, markers: Iterable[Marker]) -> dict[str, Any]:
    of_split = [m for m in markers if m.record and m.record.split == split]
    statistics = Statistics.total(m.statistics for m in of_split)
    return {**_sums([m.record for m in of_split if m.record]), **statistics.summary()}


def _sums(records: list[ShardRecord]) -> dict[str, int]:
    return {
        "shards": len(records),
        "samples": sum(record.samples for record in records),
        "bytes": sum(record.bytes for record in records),
    }
