"""Summarise runs: medians with their spread, ratios within rounds, a JSON file, tables on the terminal."""

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

from benchmarks.common import say
from benchmarks.machine import describe_machine
from srshards.storage.files import write_atomically


@dataclass(frozen=True)
class Ratio:
    """The rate of case `top` over that of the fastest of `bottoms`, within each round; and its target, if any."""

    name: str
    top: str
    bottoms: tuple[str, ...]
    at_least: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def target(self) -> str:
        limits = {"at least": self.at_least, "more than": self.above, "below": self.below}
        return next((f"{phrase} {limit:g}" for phrase, limit in limits.items() if limit is not None), "")

    def is_met(self, value: float) -> bool | None:
        """Return whether `value` meets the target; None when there is no target."""
        if self.at_least is not None:
            return value >= self.at_least
        if self.above is not None:
            return value > self.above
        return value < self.below if self.below is not None else None

    def evaluate(self, rates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """Return the ratio's spread and whether its median meets the target, from `rates`: by case, one per round.

        Bottoms without rates are listed as missing. Without the top, or without any bottom, it is unavailable.
        """
        heading = {"name": self.name, "target": self.target, "top": self.top}
        present = [name for name in self.bottoms if name in rates]
        missing = [name for name in self.bottoms if name not in rates]
        if self.top not in rates or not present:
            return {**heading, "unavailable": ", ".join(missing) if self.top in rates else self.top}
        best = [max(of_round) for of_round in zip(*(rates[name] for name in present), strict=True)]
        values = [top / bottom for top, bottom in zip(rates[self.top], best, strict=True)]
        fastest = max(present, key=lambda name: median(rates[name]))
        met = self.is_met(median(values))
        return {**heading, "bottom": fastest, "missing": missing, "ratio": spread(values, 3), "met": met}


def spread(values: Sequence[float], digits: int = 2) -> dict[str, Any]:
    """Return median, minimum, maximum, and the values themselves (`rounds`), rounded."""
    rounded = [round(value, digits or None) for value in values]
    return {
        "median": round(median(values), digits or None),
        "min": min(rounded),
        "max": max(rounded),
        "rounds": rounded,
    }


def spread_text(values: Mapping[str, Any], digits: int | None = None) -> str:
    """Format a spread as `median (min-max)`, with `digits` decimals (None: unrounded)."""
    form = "," if digits is None else f",.{digits}f"
    return f"{values['median']:{form}} ({values['min']:{form}}-{values['max']:{form}})"


def verdict(met: bool | None) -> str:
    return "" if met is None else "met" if met else "MISSED"


def ratio_row(ratio: Mapping[str, Any]) -> list[str]:
    """Return the cells: name, target, value, verdict."""
    if "unavailable" in ratio:
        return [ratio["name"], ratio["target"], f"not measured: {ratio['unavailable']}", ""]
    return [ratio["name"], ratio["target"], spread_text(ratio["ratio"], 2), verdict(ratio["met"])]


def write_result(path: Path, command: str, scratch: Path, content: Mapping[str, Any]) -> None:
    """Write the result atomically as JSON, with the command that produces it, the date and the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    result = {"command": command, "date": now, "machine": describe_machine(scratch), **content}
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())
    say(f"wrote {path}")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output: text in the first column, numbers in the others."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
