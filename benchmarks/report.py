"""Runs become figures: medians with their spread, ratios, a JSON file and a table on the screen."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import CLOCKS, Rounds, Way, say
from benchmarks.machine import describe_machine
from srshards.storage.files import write_atomically


@dataclass(frozen=True)
class Ratio:
    """Speed of the way `top` over speed of the way `bottom`, and what is wanted of it, if anything."""

    name: str
    top: str
    bottom: str
    at_least: float | None = None
    below: float | None = None

    @property
    def wanted(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return f"below {self.below:g}" if self.below is not None else ""

    def is_met(self, value: float) -> bool | None:
        """Whether `value` is what is wanted; None when nothing is."""
        if self.at_least is not None:
            return value >= self.at_least
        return value < self.below if self.below is not None else None


def spread(values: Sequence[float], digits: int = 2) -> dict[str, Any]:
    """Median, minimum, maximum, and the values themselves."""
    rounded = [round(value, digits or None) for value in values]
    return {
        "median": round(median(values), digits or None),
        "min": min(rounded),
        "max": max(rounded),
        "rounds": rounded,
    }


def summarise_ways(ways: Sequence[Way], rounds: Rounds) -> dict[str, Any]:
    """By way: photos/s by both clocks, and the medians of what else was measured; or why there is nothing."""
    return {way.name: {"what": way.what, **_summarise(way.name, rounds)} for way in ways}


def _summarise(name: str, rounds: Rounds) -> dict[str, Any]:
    if name in rounds.unavailable:
        return {"unavailable": rounds.unavailable[name]}
    runs = rounds.runs[name]
    return {
        "photos": runs[0].photos,
        "output_bytes": runs[0].output_bytes,
        "photos_per_second": {clock: spread([run.rate(clock) for run in runs]) for clock in CLOCKS},
        "median_seconds": {key: round(median(run.seconds[key] for run in runs), 3) for key in runs[0].seconds},
    }


def summarise_ratios(ratios: Sequence[Ratio], rounds: Rounds) -> list[dict[str, Any]]:
    """Each ratio by both clocks, and whether it is what is wanted; or which way is missing."""
    return [{**_heading(ratio), **_compare(ratio, rounds)} for ratio in ratios]


def _heading(ratio: Ratio) -> dict[str, Any]:
    return {"name": ratio.name, "top": ratio.top, "bottom": ratio.bottom, "wanted": ratio.wanted}


def _compare(ratio: Ratio, rounds: Rounds) -> dict[str, Any]:
    for name in (ratio.top, ratio.bottom):
        if name in rounds.unavailable:
            return {"unavailable": f"{name}: {rounds.unavailable[name]}"}
    result: dict[str, Any] = {}
    pairs = list(zip(rounds.runs[ratio.top], rounds.runs[ratio.bottom], strict=True))
    for clock in CLOCKS:
        values = [top.rate(clock) / bottom.rate(clock) for top, bottom in pairs]
        result[clock] = {**spread(values, 3), "met": ratio.is_met(median(values))}
    return result


def write_result(path: Path, command: str, scratch: Path, content: Mapping[str, Any]) -> None:
    """The result as JSON, whole or not at all, with the command that makes it, the date and the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    result = {"command": command, "date": now, "machine": describe_machine(scratch), **content}
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())
    say(f"written: {path}")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A small table on standard output; the first column is text, the others are figures."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def way_row(name: str, summary: Mapping[str, Any]) -> list[str]:
    """A way's row: photos/s by both clocks as `median (min-max)`, MB per photo."""
    if "unavailable" in summary:
        return [name, "not measured", "not measured", ""]
    rates = [_median_text(summary["photos_per_second"][clock], 0) for clock in CLOCKS]
    return [name, *rates, f"{summary['output_bytes'] / summary['photos'] / 1e6:.2f}"]


def ratio_row(ratio: Mapping[str, Any]) -> list[str]:
    """A ratio's row: what is wanted, what came by both clocks, and whether that is enough."""
    if "unavailable" in ratio:
        return [ratio["name"], ratio["wanted"], "", "", "not measured"]
    met = [ratio[clock]["met"] for clock in CLOCKS]
    return [ratio["name"], ratio["wanted"], *(_median_text(ratio[clock], 2) for clock in CLOCKS), _verdict(*met)]


def _verdict(by_command: bool | None, by_work: bool | None) -> str:
    if by_command is None:
        return ""
    if by_command and by_work:
        return "met"
    if by_command or by_work:
        return f"met only {'with' if by_command else 'without'} start-up"
    return "MISSED"


def _median_text(values: Mapping[str, Any], digits: int) -> str:
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f}-{values['max']:.{digits}f})"
