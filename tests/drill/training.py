"""Small training runs, and their comparison with an undisturbed run."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.drill.commands import Command, Problem
from tests.drill.folders import make_photos, temporary_files
from tests.drill.warm import run_warm

SMALL = ("--model", "ultra_lite", "--patch-size", 24, "--batch-size", 4, "--device", "cpu", "--run", "r")

_FAULT_EVENTS = ("error", "unsaved")  # logged because of the fault itself
_TIMES = {"patches_per_s", "data_wait", "seconds"}  # fields that differ from run to run


def training(folder: Path, *args: object) -> Command:
    """Generate 2x shards in `folder` and return the command that trains on them; `--out` and its value are missing."""
    return ("trainer", "--shards", small_shards(folder), *SMALL, *args, "--out")


def small_shards(folder: Path) -> Path:
    """Generate 2x shards to train on, and return their folder."""
    photos = make_photos(folder / "photos", 40)
    args = ("-s", 2, "--size", 64, "--shard-bytes", "300KB", "--workers", 0, "--auto")
    run_warm("shardgen", "generate", "-i", photos, "-o", folder / "shards", *args).check()
    return folder / "shards" / "scale_2x"


def config_path(out: Path) -> Path:
    """The first file that a run saves."""
    return out / "r" / "config.yaml"


def resume_or_restart(command: Command, out: Path) -> Command:
    """Return the command that resumes the run in `out`, or `command` if the run has saved nothing yet."""
    return ("trainer", "--out", out, "--run", "r", "--resume") if config_path(out).exists() else command


def stop_after(steps: int) -> None:
    """Make training send itself SIGTERM, as a cluster does, at the end of a step."""
    from trainer.training.learner import Learner

    step = Learner.step

    def stopping(self: Learner, index: int, *args: object) -> object:
        loss = step(self, index, *args)  # type: ignore[arg-type]
        if index + 1 == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    Learner.step = stopping  # type: ignore[assignment,method-assign]


def journal(run: Path) -> list[dict[str, Any]]:
    """Return the events of a run's training log, without events and fields that differ from run to run."""
    with open(run / "journal.jsonl", encoding="utf-8", newline="\n") as file:
        events = [event for event in map(json.loads, file) if event["event"] != "account"]
    return [{name: value for name, value in event.items() if name not in _TIMES} for event in events]


def training_differences(run: Path, undisturbed: Path) -> list[Problem]:
    """Report differences of a finished run from an undisturbed one: losses, validations, weights, temporary files."""
    problems = []
    ours, theirs = ([e for e in journal(path) if e["event"] not in _FAULT_EVENTS] for path in (run, undisturbed))
    if ours != theirs:
        pairs = zip(ours, theirs, strict=False)
        different = next((pair for pair in pairs if pair[0] != pair[1]), (len(ours), len(theirs)))
        problems.append(("silent", f"the training log differs: {different}"))
    for name in ("model.pth", "best.pth"):
        if (run / name).read_bytes() != (undisturbed / name).read_bytes():
            problems.append(("silent", f"{name} differs from the undisturbed run"))
    return problems + temporary_files(run)
