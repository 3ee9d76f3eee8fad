"""Rounds of `bench_generate`: in each, every case generates all data from scratch."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.common import PhotoSet, RunFailedError, in_rounds, say
from benchmarks.report import Ratio, spread, spread_text

CLOCKS = ("command", "work")


@dataclass(frozen=True)
class Run:
    """One timed run.

    `command_s` is the wall time of the command, including interpreter start and imports; `work_s` the time from just
    before its workers were started until the last had exited. `seconds` are further times by name, summed over workers.
    """

    photos: int
    command_s: float
    work_s: float
    output_bytes: int
    seconds: dict[str, float] = field(default_factory=dict)

    def rate(self, clock: str) -> float:
        """Return photos per second by the clock `command` or `work`."""
        return self.photos / (self.command_s if clock == "command" else self.work_s)


@dataclass(frozen=True)
class Case:
    """A case to compare: `run(photos, output)` generates the data once, into the new folder `output`."""

    name: str
    what: str
    run: Callable[[PhotoSet, Path], Run]
    optional: bool = False  # a failure is recorded in the result and does not end the benchmark


@dataclass
class Rounds:
    """Runs of every case in the order of the rounds; for cases that failed, the reason."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)


def alternate(cases: Sequence[Case], photos: PhotoSet, scratch: Path, rounds: int, num_warm_up: int = 16) -> Rounds:
    """Run every case once per round, after an unrecorded pass over `num_warm_up` photos.

    The warm-up fills caches (bytecode, libraries in the page cache) and finds the cases that do not work.
    """
    result = Rounds()
    warm_up = photos.first(num_warm_up, scratch / "warm_up")
    for case in cases:
        _attempt(case, warm_up, scratch, result)
        say(f"warm-up  {case.name}: {result.unavailable.get(case.name, 'works')}")
    for number, case in in_rounds(cases, rounds):
        if case.name not in result.unavailable and (run := _attempt(case, photos, scratch, result)):
            result.runs.setdefault(case.name, []).append(run)
            say(f"round {number + 1}/{rounds}  {case.name}: {run.rate('command'):.0f} photos/s")
    return result


def _attempt(case: Case, photos: PhotoSet, scratch: Path, result: Rounds) -> Run | None:
    """Run with the photos in the page cache and no dirty pages in it; delete the output afterwards."""
    output = scratch / "output"
    photos.read_into_page_cache()
    os.sync()
    try:
        return case.run(photos, output)
    except RunFailedError as error:
        if not case.optional:
            raise click.ClickException(f"{case.name}: {error}") from error
        result.unavailable[case.name] = str(error)
        result.runs.pop(case.name, None)
        return None
    finally:
        shutil.rmtree(output, ignore_errors=True)


def summarise_cases(cases: Sequence[Case], rounds: Rounds) -> dict[str, Any]:
    """Return by case: photos/s by both clocks, medians of the further times; or the reason why it was not measured."""
    return {case.name: {"what": case.what, **_summarise(case.name, rounds)} for case in cases}


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


def evaluate_ratio(ratio: Ratio, rounds: Rounds) -> dict[str, Any]:
    """Return the ratio by each clock and whether it meets its target; or the case that was not measured."""
    result: dict[str, Any] = {"name": ratio.name, "target": ratio.target, "top": ratio.top, "bottom": ratio.bottoms[0]}
    for name in (ratio.top, *ratio.bottoms):
        if name in rounds.unavailable:
            return {**result, "unavailable": f"{name}: {rounds.unavailable[name]}"}
    for clock in CLOCKS:
        found = ratio.evaluate({name: [run.rate(clock) for run in runs] for name, runs in rounds.runs.items()})
        result[clock] = {**found["ratio"], "met": found["met"]}
    return result


def case_row(name: str, summary: Mapping[str, Any]) -> list[str]:
    """Return the cells: name, photos/s by both clocks, MB per photo."""
    if "unavailable" in summary:
        return [name, "not measured", "not measured", ""]
    rates = [spread_text(summary["photos_per_second"][clock], 0) for clock in CLOCKS]
    return [name, *rates, f"{summary['output_bytes'] / summary['photos'] / 1e6:.2f}"]


def clocks_row(ratio: Mapping[str, Any]) -> list[str]:
    """Return the cells: name, target, ratio by both clocks, verdict."""
    if "unavailable" in ratio:
        return [ratio["name"], ratio["target"], "", "", "not measured"]
    return [ratio["name"], ratio["target"], *(spread_text(ratio[clock], 2) for clock in CLOCKS), _verdict(ratio)]


def _verdict(ratio: Mapping[str, Any]) -> str:
    by_command, by_work = (ratio[clock]["met"] for clock in CLOCKS)
    if by_command is None:
        return ""
    if by_command != by_work:
        return f"met only {'with' if by_command else 'without'} start-up"
    return "met" if by_command else "MISSED"
