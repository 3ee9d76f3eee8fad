"""Build the manifest of a scale's folder from the markers of its shards, and report malformed ones."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shardgen.pairs.summary import PairSummary
from shardgen.planning.config import Config
from shardgen.shard.marker import Marker, Profiles
from shardgen.shard.statistics import Statistics
from srshards import __version__
from srshards.format import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    SPLITS,
    Address,
    FormatError,
    ShardRecord,
    dump_json,
    split_of,
)
from srshards.storage.store import read_bytes, write_bytes


def build_manifest(markers: Mapping[str, Marker], config: Config, scale: int) -> dict[str, Any]:
    """Return the manifest: a pure function of the shards' markers and settings, so that equal runs give equal bytes."""
    settings = config.settings(scale)
    return {
        "format_version": FORMAT_VERSION,
        "generator": {"name": "shardgen", "version": __version__},
        "settings": settings,
        "fingerprint": config.fingerprint(scale),
        **manifest_content(markers, settings),
    }


def manifest_content(by_name: Mapping[str, Marker], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest's entries that depend on the shards, given the marker of each shard.

    They are totals, splits, shards, failures, skipped, profiles, and for given pairs also the summary of their checks.
    """
    markers = list(by_name.values())
    with_split = settings.get("val_fraction", 0.0) is None  # the paths of both folders may be equal
    summary = {"pairs": PairSummary.total(m.pairs for m in markers if m.pairs).as_dict()}
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
        "failures": _reasons({name: m.failures for name, m in by_name.items()}, with_split),
        "skipped": _reasons({name: m.skipped for name, m in by_name.items()}, with_split),
        "profiles": {
            "converted": Profiles.total(m.profiles for m in markers).as_dict()["converted"],
            "unusable": _reasons({name: m.profiles.unusable for name, m in by_name.items()}, with_split),
        },
        **(summary if settings.get("pairs") else {}),
    }


def _reasons(by_name: Mapping[str, Iterable[tuple[str, str]]], with_split: bool) -> list[dict[str, str]]:
    """Return the (path, reason) pairs of all shards, sorted; with the split of their shard."""
    found = sorted((path, reason, split_of(name)) for name, pairs in by_name.items() for path, reason in pairs)
    return [
        {"path": path, "reason": reason, **({"split": split} if with_split else {})} for path, reason, split in found
    ]


def write_manifest(folder: Address, manifest: dict[str, Any]) -> None:
    """Write the manifest unless the file already has this content."""
    path, content = folder / MANIFEST_NAME, dump_json(manifest)
    try:
        if read_bytes(path) == content:
            return
    except FileNotFoundError:
        pass
    write_bytes(path, content)


@contextmanager
def malformed_as_format_error(path: object) -> Iterator[None]:
    """Raise FormatError if the manifest in `path` is incomplete or deviates from `docs/reference/formats.md`."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        advice = f"run `python -m shardgen verify {path}`"
        raise FormatError(f"{path}/{MANIFEST_NAME} is incomplete or malformed ({error!r:.200}); {advice}") from error


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
