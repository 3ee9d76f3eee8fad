"""The done marker of a shard: written last, so that a shard without one is incomplete and ignored."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shardgen.pairs.summary import PairSummary
from shardgen.shard.statistics import Statistics
from srshards.format import Address, FormatError, ShardRecord, dump_json, load_json, parse_record
from srshards.process.shortages import shortage
from srshards.storage.store import read_bytes, write_bytes


@dataclass(frozen=True)
class Marker:
    """The result of building a shard at one scale. `record` is None if no photo produced a sample.

    `fingerprint` covers the settings and the photos' paths, sizes and times. `failures` and `skipped` are
    (path, reason) pairs. `pairs` summarises the checks of given pairs; None for photos.
    """

    fingerprint: str
    record: ShardRecord | None
    num_photos: int
    num_enlarged: int
    failures: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    statistics: Statistics
    pairs: PairSummary | None = None

    def write(self, path: Address) -> None:
        content = {
            "fingerprint": self.fingerprint,
            "record": self.record.as_dict() if self.record else None,
            "photos": self.num_photos,
            "enlarged": self.num_enlarged,
            "failures": reason_records(self.failures),
            "skipped": reason_records(self.skipped),
            "statistics": self.statistics.as_dict(),
            **({"pairs": self.pairs.as_dict()} if self.pairs else {}),
        }
        write_bytes(path, dump_json(content))


def reason_records(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason} for path, reason in pairs]


def read_marker(path: Address) -> Marker | None:
    """Return the marker in the file; None when it is missing or malformed.

    StoreError when a store's requests fail; OSError when this process has too many open files.
    """
    try:
        return _parse(load_json(path, read_bytes), path)
    except OSError as error:
        if shortage(error):
            raise
        return None
    except (FormatError, KeyError, TypeError, ValueError):
        return None


def _parse(value: dict[str, Any], path: Address) -> Marker:
    return Marker(
        fingerprint=_text(value["fingerprint"]),
        record=parse_record(value["record"], path) if value["record"] else None,
        num_photos=_count(value["photos"]),
        num_enlarged=_count(value["enlarged"]),
        failures=tuple((_text(item["path"]), _text(item["reason"])) for item in value["failures"]),
        skipped=tuple((_text(item["path"]), _text(item["reason"])) for item in value["skipped"]),
        statistics=Statistics.from_dict(value["statistics"]),
        pairs=PairSummary.from_dict(value["pairs"]) if "pairs" in value else None,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is not a count")
    return value
