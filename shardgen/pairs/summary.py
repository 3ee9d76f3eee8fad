"""What the checks of given pairs found: per pair, and summed up over the pairs of a shard or a folder."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shardgen.pairs.check import PairCheck, main_finding, severity
from srshards.errors import RunError


@dataclass(frozen=True)
class PairRecord:
    """The check of a pair that is used, whether its HR was cropped, and whether it was used in spite of the check."""

    check: PairCheck
    is_cropped: bool = False
    is_accepted: bool = False


@dataclass(frozen=True)
class WorstPair:
    """The pair that is nearest to a bound, or furthest beyond it, by its HR image.

    `figure` states the figure and its bound, `severity` is the figure as a multiple of the bound.
    """

    path: str
    severity: float
    figure: str


@dataclass(frozen=True)
class PairSummary:
    """Numbers of used pairs: checked, with a cropped HR image, accepted in spite of the check; and the worst pair."""

    checked: int = 0
    cropped: int = 0
    accepted: int = 0
    worst: WorstPair | None = None

    @classmethod
    def of(cls, path: str, record: PairRecord) -> "PairSummary":
        """Return the summary of one pair."""
        worst = WorstPair(path, round(severity(record.check), 3), str(main_finding(record.check)))
        return cls(1, int(record.is_cropped), int(record.is_accepted), worst)

    @classmethod
    def total(cls, parts: Iterable["PairSummary"]) -> "PairSummary":
        parts = list(parts)
        # Of equally bad pairs the first by name, so that the order of the parts does not matter.
        found = (part.worst for part in parts if part.worst)
        worst = min(found, key=lambda pair: (-pair.severity, pair.path), default=None)
        checked, cropped = sum(part.checked for part in parts), sum(part.cropped for part in parts)
        return cls(checked, cropped, sum(part.accepted for part in parts), worst)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as JSON for marker and manifest; `from_dict` is the inverse."""
        worst = self.worst and asdict(self.worst)
        return {"checked": self.checked, "cropped": self.cropped, "accepted": self.accepted, "worst": worst}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "PairSummary":
        """Parse the result of `as_dict`. KeyError, TypeError or ValueError when the value is malformed."""
        checked, cropped, accepted = (value[name] for name in ("checked", "cropped", "accepted"))
        if any(type(count) is not int or not 0 <= count < 2**63 for count in (checked, cropped, accepted)):
            raise ValueError("expected counts from 0 to 2^63 - 1")
        if value["worst"] is None:
            return cls(checked, cropped, accepted)
        worst = WorstPair(**value["worst"])
        if [type(one) for one in (worst.path, worst.severity, worst.figure)] != [str, float, str]:
            raise ValueError("expected a path, a number and a text")
        return cls(checked, cropped, accepted, worst)


def describe_settings(pairs: Mapping[str, Any]) -> str:
    """Return the setting `pairs` of a manifest as text."""
    accepted = ", misaligned pairs accepted" if pairs.get("accept_misaligned") else ""
    return f"LR given, up {pairs.get('up')}{accepted}"


def stored_check(value: Mapping[str, float], scale: int, where: str) -> PairCheck:
    """Return the check that a sample's `json` has as `pair`. RunError, starting with `where`, if it is incomplete."""
    try:
        return PairCheck.from_dict(value, scale)
    except KeyError as error:
        raise RunError(f"{where}: pair has no {error.args[0]}") from None


def figures(check: PairCheck) -> list[tuple[str, str]]:
    """Return the figures of a check by name, as text with units."""
    plus_minus = "\N{PLUS-MINUS SIGN}"
    shift, stretch = (f"{x:.3f}, {y:.3f} LR px" for x, y in (check.shift, check.stretch))
    return [
        ("displacement", f"{shift}, {plus_minus}{check.shift_error:.3f}"),
        ("magnification", f"{stretch} at the edges, {plus_minus}{check.stretch_error:.3f}"),
        ("red, green, blue", f"{check.red:+.1f}, {check.green:+.1f}, {check.blue:+.1f} grey levels"),
        ("noise", f"{check.noise:.1f} grey levels"),
        ("correlation", f"{check.correlation:.3f}"),
        *([("of LR flipped or rotated", f"{check.turned_correlation:.3f}")] if check.turned_correlation else []),
        ("of red - blue", f"{check.colour_correlation:.3f}"),
        ("detail of HR", f"{check.detail:.1f} grey levels"),
    ]
