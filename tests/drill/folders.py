"""What lies in a folder of shards or of a run, compared with what an undisturbed one gave."""

import hashlib
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from tests.drill.session import PATIENCE_S

Problem = tuple[str, str]

_STATS, _LOCK = "processing_stats.json", ".shardgen.lock"  # the one holds times, the other nothing
_OF_FAULTS = ("error", "unsaved")  # events of the journal that tell of the fault itself
_TIMES = {"patches_per_s", "data_wait", "seconds"}  # of the journal: what differs from run to run


def make_photos(folder: Path, count: int, size: tuple[int, int] = (90, 120)) -> Path:
    """`count` JPEG and PNG photos in three class folders, with equal content and times on every call."""
    for number in range(count):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        path = folder / f"class{number % 3}" / f"img{number}.{'png' if number % 5 == 4 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize(size[::-1], Image.Resampling.BICUBIC).save(path, quality=92)
        os.utime(path, ns=(10**18, 10**18))
    return folder


def hashes(output: Path) -> dict[str, str]:
    """sha256 of every tar, index, marker and manifest, by its path."""
    found = {}
    for path in sorted(output.rglob("*")):
        if path.suffix in (".tar", ".idx", ".json") and path.name != _STATS and not path.name.startswith("."):
            found[str(path.relative_to(output))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def unfinished(output: Path, undisturbed: dict[str, str]) -> list[Problem]:
    """Files that stand under their final name but are not the whole ones of an undisturbed run."""
    found = hashes(output).items()
    return [("half_written", f"{name} is not whole") for name, digest in found if undisturbed.get(name) != digest]


def differences(output: Path, undisturbed: dict[str, str]) -> list[Problem]:
    """What is missing, other or left over after a run that ended well."""
    found = hashes(output)
    problems = [("samples_lost", f"{name} is missing") for name in sorted(undisturbed.keys() - found.keys())]
    wrong = [name for name, digest in found.items() if undisturbed.get(name) != digest]
    problems += [("silent", f"{name} is not that of an undisturbed run") for name in wrong]
    return problems + leftovers(output)


def leftovers(folder: Path) -> list[Problem]:
    """Temporary files."""
    return [("half_written", f"{path} stayed") for path in folder.rglob("*.tmp")]


def journal(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's journal, without what differs from run to run."""
    with open(run / "journal.jsonl", encoding="utf-8", newline="\n") as file:
        lines = [json.loads(line) for line in file]
    return [{name: value for name, value in line.items() if name not in _TIMES} for line in lines]


def other_training(run: Path, undisturbed: Path) -> list[Problem]:
    """How a finished run differs from an undisturbed one: loss curve, validations, weights, files."""
    problems = []
    ours, theirs = ([e for e in journal(path) if e["event"] not in _OF_FAULTS] for path in (run, undisturbed))
    if ours != theirs:
        wrong = next((pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]), (len(ours), len(theirs)))
        problems.append(("silent", f"the loss curve is another: {wrong}"))
    for name in ("model.pth", "best.pth"):
        if (run / name).read_bytes() != (undisturbed / name).read_bytes():
            problems.append(("silent", f"{name} is not that of an undisturbed run"))
    return problems + leftovers(run)


def wait_for_group(pid: int) -> None:
    """Until no process of the group is alive; those that are stuck are killed, so that the next case begins clean."""
    deadline = time.monotonic() + PATIENCE_S / 5
    while any(_is_of_group(process, pid) for process in psutil.process_iter()):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            raise RuntimeError(f"processes of a killed run (group {pid}) live on")
        time.sleep(0.01)


def _is_of_group(process: psutil.Process, pid: int) -> bool:
    try:
        return os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
