"""Read run folders, local or in an object store, without changing them."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml
from markupsafe import Markup

from srshards.errors import UsageError
from srshards.format import Address
from srshards.plain_yaml import load_plain_yaml
from srshards.storage.store import file_size, is_folder, list_files, list_folders, read_bytes, storage_of
from srshards.terminal.text import plural
from trainer.report.journal_summary import JournalSummary, empty_summary, read_journal
from trainer.report.names import shortened, unbroken

_PREVIEW = re.compile(r"step-(\d{1,15})\.png")
_LOCATION_SETTINGS = ("out", "run")  # not shown: the page shows the run's address instead
_MAX_SETTINGS_BYTES = 1_000_000


@dataclass(frozen=True)
class Run:
    """A run. `label` and `short`, its short form, are unique on the page; `settings` are those of config.yaml.

    `plan` has the derived values of plan.json, empty for runs of older versions. `previews` has the file and its size
    by step. `problems` lists what could not be read.
    """

    address: Address
    label: str
    short: str
    settings: dict[str, Any]
    plan: dict[str, Any]
    summary: JournalSummary
    previews: dict[int, tuple[Address, int]]
    written: datetime | None
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> Markup:
        """HTML of the short label, which has the full one as its title."""
        return unbroken(self.label, self.short)

    @property
    def planned(self) -> int | None:
        """Total number of steps; None if unknown."""
        steps = self.plan.get("steps", self.settings.get("steps"))
        return steps if type(steps) is int and steps >= 0 else None

    @property
    def scale(self) -> int | None:
        scale = self.plan.get("scale")
        return scale if isinstance(scale, int) else None

    @property
    def state(self) -> str:
        """`finished`, `not finished` (stopped or still running), `failed` or `unknown`."""
        summary = self.summary
        if summary.error is not None:
            return "failed"
        if self.planned is None:
            return "unknown"
        validated = summary.last is None or summary.last.step >= self.planned
        return "finished" if summary.step >= self.planned and validated else "not finished"

    @property
    def bicubic(self) -> float:
        """PSNR-Y of the bicubic baseline in dB; NaN before the first validation."""
        return self.summary.last.bicubic_psnr_y if self.summary.last else math.nan


def read_runs(addresses: Sequence[Address], max_points: int) -> list[Run]:
    """Read the runs in the given order. UsageError for a folder that is not a run."""
    resolved = [storage_of(address).resolved(address) for address in addresses]
    for number, address in enumerate(resolved):
        if address in resolved[:number]:
            raise UsageError(f"{addresses[number]} was passed twice; pass each run once")
    files = [_files(address) for address in addresses]
    # Absolute but not resolved: a run that is a symbolic link keeps the link's name.
    absolute = [storage_of(address).absolute(address) for address in addresses]
    labels = _labels(absolute)
    return [_read(*run, max_points) for run in zip(absolute, labels, shortened(labels), files, strict=True)]


def same_bicubic(runs: Sequence[Run]) -> bool:
    """Return whether the PSNR-Y of bicubic is equal in all validated runs, as it is for the same images."""
    return _are_equal(run.bicubic for run in runs)


def differing_sets(runs: Sequence[Run]) -> list[str]:
    """Return the names of the sets on which the PSNR-Y of bicubic differs: the runs have different images of them."""
    names = dict.fromkeys(name for run in runs for name in run.summary.sets)
    return [
        name
        for name in names
        if not _are_equal(run.summary.of_set(name).bicubic.get("psnr_y", math.nan) for run in runs)
    ]


def _are_equal(psnrs: Iterable[float]) -> bool:
    return len({f"{psnr:.4f}" for psnr in psnrs if not math.isnan(psnr)}) <= 1


def _files(address: Address) -> dict[str, int]:
    files = list_files(address)
    if "journal.jsonl" in files or "config.yaml" in files:
        return files
    children, siblings = _runs_in(address), _runs_in(address.parent)
    if children:
        hint = f"runs in it: {', '.join(str(address / name) for name in children)}"
    elif siblings:
        hint = f"runs in {address.parent}: {', '.join(siblings)}"
    else:
        hint = "pass the folder of a run, e.g. runs/lite-4x"
    what = "is not a run: it has no journal.jsonl" if is_folder(address) else "is not a folder"
    raise UsageError(f"{address} {what}; {hint}")


def _runs_in(folder: Address) -> list[str]:
    names = list_folders(folder)
    return [name for name in names if file_size(folder / name / "journal.jsonl") is not None]


def _labels(addresses: Sequence[Address]) -> list[str]:
    """Return the name of each, preceded by as many parent folders as make it unique."""
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


def _read(address: Address, label: str, short: str, files: dict[str, int], max_points: int) -> Run:
    problems: list[str] = []
    previews = {
        int(match[1]): (address / "previews" / name, size)
        for name, size in sorted(list_files(address / "previews").items())
        if (match := _PREVIEW.fullmatch(name))
    }
    journal = address / "journal.jsonl"
    has_started = "journal.jsonl" in files
    summary = read_journal(journal, frozenset(previews), max_points) if has_started else empty_summary(max_points)
    if summary.num_unreadable:
        problems.append(
            f"{journal}: {plural(summary.num_unreadable, 'unreadable line')}, starting with line "
            f"{summary.first_unreadable:,}"
        )
    unknown = [step for step in previews if step not in summary.psnr_at]
    if unknown:  # the run was killed before writing the journal, or was resumed from an earlier step
        steps = ", ".join(f"{step:,}" for step in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        problems.append(f"{address / 'previews'}: step {steps} omitted, not in the journal")
    config = _mapping(address / "config.yaml", files, problems)
    plan = _mapping(address / "plan.json", files, problems)
    return Run(
        address=address,
        label=label,
        short=short,
        settings={str(name): value for name, value in config.items() if name not in _LOCATION_SETTINGS},
        plan={name: value for name, value in plan.items() if isinstance(value, int | str)},
        summary=summary,
        previews={step: previews[step] for step in sorted(summary.psnr_at)},
        written=_modified(journal) if has_started else None,
        problems=problems,
    )


def _modified(file: Address) -> datetime | None:
    seconds = storage_of(file).modified_s(file)
    return None if seconds is None else datetime.fromtimestamp(seconds).astimezone()


def _mapping(file: Address, files: dict[str, int], problems: list[str]) -> dict[Any, Any]:
    """Return the mapping in a small YAML or JSON file; empty if it is missing, or unreadable, which is a problem."""
    if file.name not in files:
        return {}
    try:
        if files[file.name] > _MAX_SETTINGS_BYTES:
            raise ValueError("too large")
        text = read_bytes(file).decode()
        content = json.loads(text) if file.suffix == ".json" else load_plain_yaml(text)
        if not isinstance(content, dict):
            raise ValueError("not a mapping")
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        problems.append(f"{file} cannot be read")
        return {}
    return content
