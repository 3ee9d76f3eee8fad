"""What the checks of given pairs found: per pair, and summed up over the pairs of a shard or a folder."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import hypot
from typing import Any

from shardgen.pairs.check import PairCheck


@dataclass(frozen=True)
class PairRecord:
    """The check of a pair that is used, whether its HR was cropped, and whether it was used in spite of the check."""

    check: PairCheck
    is_cropped: bool = False
    is_accepted: bool = False

    @property
    def figures(self) -> dict[str, float]:
        """The entry `pair` of a sample's `json`."""
        return self.check.as_dict()

    @property
    def badness(self) -> dict[str, float]:
        """The figures of which a summary has the worst value. Greater is worse, also for the negated correlation."""
        check = self.check
        return {
            "shift": round(hypot(*check.shift), 4),
            "brightness": abs(check.brightness),
            "colour": check.colour,
            "correlation": -check.correlation,
        }


@dataclass
class PairSummary:
    """Numbers of used pairs (checked, cropped, accepted in spite of the check), and the worst figures with their pairs.

    `worst` holds (value, HR path) by figure: the length of the shift in LR px, the differences of brightness and of
    colour in grey levels, the correlation.
    """

    checked: int = 0
    cropped: int = 0
    accepted: int = 0
    _worst: dict[str, tuple[float, str]] = field(default_factory=dict)  # greater is worse

    def add(self, path: str, record: PairRecord) -> None:
        self.checked += 1
        self.cropped += record.is_cropped
        self.accepted += record.is_accepted
        self._extend({name: (value, path) for name, value in record.badness.items()})

    def _extend(self, worst: dict[str, tuple[float, str]]) -> None:
        for name, found in worst.items():
            # Of equal values the first path is kept, so that the order of the pairs does not matter.
            known = self._worst.get(name, found)
            self._worst[name] = min(known, found, key=lambda one: (-one[0], one[1]))

    @classmethod
    def total(cls, parts: Iterable["PairSummary"]) -> "PairSummary":
        total = cls()
        for part in parts:
            total.checked += part.checked
            total.cropped += part.cropped
            total.accepted += part.accepted
            total._extend(part._worst)
        return total

    @property
    def worst(self) -> dict[str, tuple[float, str]]:
        return {name: (_plain(name, value), path) for name, (value, path) in self._worst.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as JSON for marker and manifest; `from_dict` is the inverse."""
        worst = {name: {"value": value, "path": path} for name, (value, path) in self.worst.items()}
        return {"checked": self.checked, "cropped": self.cropped, "accepted": self.accepted, "worst": worst}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "PairSummary":
        """Parse the result of `as_dict`. KeyError, TypeError or ValueError when the value is malformed."""
        summary = cls(value["checked"], value["cropped"], value["accepted"])
        counts = (summary.checked, summary.cropped, summary.accepted)
        if any(type(count) is not int or not 0 <= count < 2**63 for count in counts):
            raise ValueError("expected counts from 0 to 2^63 - 1")
        for name, found in value["worst"].items():
            if type(found["value"]) not in (float, int) or type(found["path"]) is not str:
                raise ValueError("expected a value and a path for each figure")
            summary._worst[name] = (_plain(name, found["value"]), found["path"])
        return summary


def describe_settings(pairs: Mapping[str, Any]) -> str:
    """Return the setting `pairs` of a manifest as text."""
    accepted = ", misaligned pairs accepted" if pairs.get("accept_misaligned") else ""
    return f"LR given, up {pairs.get('up')}{accepted}"


def format_figures(figures: Mapping[str, Any]) -> str:
    """Return the entry `pair` of a sample's `json` as text."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())


def _plain(name: str, value: float) -> float:
    """Convert between a figure and its badness, in either direction."""
    return -value if name == "correlation" else value
