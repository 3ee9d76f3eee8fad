"""The done marker of a shard: written last, so a shard without it is not there."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shardgen.shard.statistics import Statistics
from srshards.format import Address, FormatError, ShardRecord, dump_json, load_json, parse_record
from srshards.process.shortages import shortage
from srshards.storage.store import read_bytes, write_bytes


@dataclass(frozen=True)
class Marker:
    """What became of a shard's photos in one scale. `record` is None when none of them gave a sample.

    `fingerprint` covers the settings and the photos' paths, sizes and times; `failures` and `skipped` are
    (path, reason) pairs.
    """

    fingerprint: str
    record: ShardRecord | None
    num_photos: int
    num_enlarged: int
    failures: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    statistics: Statistics

    def write(self, path: Address) -> None:
        content = {
            "fingerprint": self.fingerprint,
            "record": self.record.as_dict() if self.record else None,
            "photos": self.num_photos,
            "enlarged": self.num_enlarged,
            "failures": named_reasons(self.failures),
            "skipped": named_reasons(self.skipped),
            "statistics": self.statistics.as_dict(),
        }
        write_bytes(path, dump_json(content))


def named_reasons(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason} for path, reason in pairs]


def read_marker(path: Address) -> Marker | None:
    """The marker in the file; None when there is none that can be understood. StoreError when a store fails.

    OSError when this process has too many files open.
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
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is no count")
    return value
