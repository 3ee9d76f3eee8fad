"""The wall clock of a run of the trainer's command: its steps, and everything else."""

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from benchmarks.common import python_module

_POLL_S = 0.1


def measure_account(
    model: str, seconds: float, batch: int, patch: int, shards: str, device: str, workers: int, scratch: str
) -> Iterator[dict[str, Any]]:
    """Train with the command's defaults for `seconds` of wall clock, then stop it as Ctrl-C does.

    Yields how the wall clock divided, as the run itself recorded it (`account`: seconds by phase, and `steps_share`,
    that of the steps between the first and the last); steps, patches per second and share of waiting for data by the
    journal; the wall clock of the whole process; and the line in which the run described its device and step.

    RuntimeError with the last line of its output if the run fails.
    """
    sizes = ("--model", model, "--batch-size", batch, "--patch-size", patch, "--workers", workers)
    with TemporaryDirectory(dir=scratch) as folder, open(Path(folder, "output"), "w+") as output:
        args = ("--shards", shards, *sizes, "--device", device, "--steps", 1_000_000, "--out", folder, "--run", "run")
        start_s = monotonic()
        process = subprocess.Popen(python_module("trainer", *args), stdout=output, stderr=output)
        journal = Path(folder, "run", "journal.jsonl")
        while process.poll() is None and (monotonic() - start_s < seconds or not _has_trained(journal)):
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
        process.send_signal(signal.SIGINT)  # nothing happens if it has ended
        code = process.wait()
        wall_s = monotonic() - start_s
        output.seek(0)
        lines = output.read().splitlines()
        if code != 128 + signal.SIGINT:
            raise RuntimeError(f"the run exited with code {code}: {lines[-1] if lines else 'no output'}")
        entries = [json.loads(line) for line in journal.read_text().splitlines()]
    yield {"wall_s": round(wall_s, 1), "device": _device_line(lines), **_figures(entries)}


def _has_trained(journal: Path) -> bool:
    with suppress(OSError):
        return '"train"' in journal.read_text()
    return False


def _device_line(lines: Sequence[str]) -> str:
    return next((line.split(maxsplit=1)[1] for line in lines if line.startswith("Device ")), "")


def _figures(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    by_event = {name: [entry for entry in entries if entry["event"] == name] for name in ("train", "val", "account")}
    trained = by_event["train"]
    found: dict[str, Any] = {
        "steps": max(entry["step"] for entry in entries),
        "patches_per_second": round(median(entry["patches_per_s"] for entry in trained), 1),
        "data_wait": round(median(entry["data_wait"] for entry in trained), 4),
        "validations": len(by_event["val"]),
    }
    account = {name: value for name, value in by_event["account"][-1].items() if name not in ("event", "step")}
    return {**found, "account": account}
