"""Runs as their folders tell of them, on this machine or in a store; nothing in them is changed."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml

from srshards.errors import UsageError
from srshards.format import Address
from srshards.plain_yaml import load_plain_yaml
from srshards.storage.store import file_size, list_files, list_folders, read_bytes, storage_of
from trainer.report.journal_summary import JournalSummary, empty_summary, read_journal

_PREVIEW = re.compile(r"step-(\d{1,15})\.png")
_PLACES = ("out", "run")  # settings that say where a run lies, which its address says better
_MAX_SETTINGS_BYTES = 1_000_000


@dataclass(frozen=True)
class Run:
    """`label` tells it from the others of the page. `settings` are those of config.yaml.

    `plan` is what these came to, empty for runs of older versions. `previews` has a file and its size for each step.
    `trouble` is what could not be read.
    """

    address: Address
    label: str
    settings: dict[str, Any]
    plan: dict[str, Any]
    summary: JournalSummary
    previews: dict[int, tuple[Address, int]]
    written: datetime | None
    trouble: list[str] = field(default_factory=list)

    @property
    def planned(self) -> int | None:
        """Steps; None where nothing tells."""
        steps = self.plan.get("steps", self.settings.get("steps"))
        return steps if type(steps) is int and steps >= 0 else None

    @property
    def scale(self) -> int | None:
        scale = self.plan.get("scale")
        return scale if isinstance(scale, int) else None

    @property
    def ended(self) -> str:
        summary = self.summary
        if summary.error is not None:
            return "ended by an error"
        if self.planned is None:
            return "not recorded"
        seen = summary.last is None or summary.last.step >= self.planned
        return "finished" if summary.step >= self.planned and seen else "not finished"

    @property
    def bicubic(self) -> float:
        """PSNR-Y in dB of what the network has to beat; NaN before the first validation."""
        return self.summary.last.bicubic_psnr_y if self.summary.last else math.nan


def read_runs(addresses: Sequence[Address], most_points: int) -> list[Run]:
    """In the order given. UsageError for a folder that is no run."""
    places = [storage_of(address).resolved(address) for address in addresses]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UsageError(f"{addresses[number]} is named twice; name each run once")
    files = [_files(address) for address in addresses]
    # By their own names, also where these are links.
    whole = [storage_of(address).absolute(address) for address in addresses]
    return [_read(*about, most_points) for about in zip(whole, _labels(whole), files, strict=True)]


def same_bicubic(runs: Sequence[Run]) -> bool:
    """Whether all that were validated were judged on images for which bicubic's figures are equal."""
    return len({f"{run.bicubic:.4f}" for run in runs if not math.isnan(run.bicubic)}) <= 1


def _files(address: Address) -> dict[str, int]:
    files = list_files(address)
    if "journal.jsonl" in files or "config.yaml" in files:
        return files
    inside, beside = _runs_in(address), _runs_in(address.parent)
    if inside:
        there = f"the runs in it are: {', '.join(str(address / name) for name in inside)}"
    elif beside:
        there = f"the runs in {address.parent} are: {', '.join(beside)}"
    else:
        there = "name the folder of a run, e.g. runs/lite-4x"
    raise UsageError(f"{address} is no run, it has no journal.jsonl; {there}")


def _runs_in(folder: Address) -> list[str]:
    names = list_folders(folder)
    return [name for name in names if file_size(folder / name / "journal.jsonl") is not None]


def _labels(addresses: Sequence[Address]) -> list[str]:
    """The name of each, with as many of the folders around it as it takes to tell it from all others."""
    parts = [[part for part in str(address).split("/") if part] for address in addresses]
    lengths = [1] * len(parts)
    while True:
        labels = ["/".join(one[-length:]) for one, length in zip(parts, lengths, strict=True)]
        longer = [
            length + 1 if labels.count(label) > 1 and length < len(one) else length
            for one, label, length in zip(parts, labels, lengths, strict=True)
        ]
        if longer == lengths:
            return labels
        lengths = longer


def _read(address: Address, label: str, files: dict[str, int], most_points: int) -> Run:
    trouble: list[str] = []
    previews = {
        int(match[1]): (address / "previews" / name, size)
        for name, size in sorted(list_files(address / "previews").items())
        if (match := _PREVIEW.fullmatch(name))
    }
    journal = address / "journal.jsonl"
    begun = "journal.jsonl" in files
    summary = read_journal(journal, frozenset(previews), most_points) if begun else empty_summary(most_points)
    if summary.num_unreadable:
        lines = "1 line" if summary.num_unreadable == 1 else f"{summary.num_unreadable:,} lines"
        trouble.append(f"{journal}: {lines} cannot be read, the first is number {summary.first_unreadable:,}")
    unknown = [step for step in previews if step not in summary.psnr_at]
    if unknown:  # the run was stopped in between, or has gone back
        steps = ", ".join(f"{step:,}" for step in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        trouble.append(f"{address / 'previews'}: the journal knows nothing of step {steps}; left out")
    config = _mapping(address / "config.yaml", files, trouble)
    plan = _mapping(address / "plan.json", files, trouble)
    return Run(
        address=address,
        label=label,
        settings={str(name): value for name, value in config.items() if name not in _PLACES},
        plan={name: value for name, value in plan.items() if isinstance(value, int | str)},
        summary=summary,
        previews={step: previews[step] for step in sorted(summary.psnr_at)},
        written=_changed(journal) if begun else None,
        trouble=trouble,
    )


def _changed(file: Address) -> datetime | None:
    seconds = storage_of(file).modified_s(file)
    return None if seconds is None else datetime.fromtimestamp(seconds).astimezone()


def _mapping(file: Address, files: dict[str, int], trouble: list[str]) -> dict[Any, Any]:
    """What a small file of names and values holds; empty when it is not there, or cannot be read, which is noted."""
    if file.name not in files:
        return {}
    try:
        if files[file.name] > _MAX_SETTINGS_BYTES:
            raise ValueError("too large")
        text = read_bytes(file).decode()
        content = json.loads(text) if file.suffix == ".json" else load_plain_yaml(text)
        if not isinstance(content, dict):
            raise ValueError("no names and values")
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        trouble.append(f"{file} cannot be read")
        return {}
    return content
