"""The done marker of a shard: written last, so that a shard without one is incomplete and ignored."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardgen.pairs.summary import PairSummary
from shardgen.shard.statistics import Statistics
from srshards.format import Address, FormatError, ShardRecord, dump_json, load_json, parse_record
from srshards.process.shortages import shortage
from srshards.storage.store import read_bytes, write_bytes


@dataclass(frozen=True)
class Profiles:
    """The colour profiles of a shard's photos.

    `converted` is the number of photos that were converted to sRGB, by the name of their profile. `unusable` are
    (path, reason) pairs of photos whose profile could not be applied; they were used as if they had none.
    """

    converted: Mapping[str, int] = field(default_factory=dict)
    unusable: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def total(parts: Iterable["Profiles"]) -> "Profiles":
        parts = list(parts)
        converted: Counter[str] = Counter()
        for part in parts:
            converted.update(part.converted)
        return Profiles(
            dict(sorted(converted.items())), tuple(sorted(pair for part in parts for pair in part.unusable))
        )

    def as_dict(self) -> dict[str, Any]:
        return {"converted": dict(sorted(self.converted.items())), "unusable": reason_records(self.unusable)}


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
    profiles: Profiles = field(default_factory=Profiles)

    def write(self, path: Address) -> None:
        content = {
            "fingerprint": self.fingerprint,
            "record": self.record.as_dict() if self.record else None,
            "photos": self.num_photos,
            "enlarged": self.num_enlarged,
            "failures": reason_records(self.failures),
            "skipped": reason_records(self.skipped),
            "profiles": self.profiles.as_dict(),
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
        failures=_reasons(value["failures"]),
        skipped=_reasons(value["skipped"]),
        statistics=Statistics.from_dict(value["statistics"]),
        pairs=PairSummary.from_dict(value["pairs"]) if "pairs" in value else None,
        profiles=_profiles(value["profiles"]) if "profiles" in value else Profiles(),  # since format version 3
    )


def _profiles(value: dict[str, Any]) -> Profiles:
    converted = {_text(name): _count(number) for name, number in value["converted"].items()}
    return Profiles(converted, _reasons(value["unusable"]))


def _reasons(items: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((_text(item["path"]), _text(item["reason"])) for item in items)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is not a count")
    return value
