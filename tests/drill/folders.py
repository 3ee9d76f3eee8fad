"""Photos for the drill, and the comparison of output folders with those of an undisturbed run."""

import hashlib
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from tests.drill.commands import Problem
from tests.drill.session import CASE_TIMEOUT_S

_STATS = "processing_stats.json"  # contains times


def make_photo(height: int, width: int, seed: int, texture: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an H x W x 3 RGB photo of smooth colours, with noise of at most `texture` levels."""
    rng = np.random.default_rng(seed)
    colours = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(colours.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-texture, texture + 1, smooth.shape), 0, 255).astype(np.uint8)


def make_photos(
    folder: Path, count: int, size: tuple[int, int] = (90, 120), classes: int = 3, texture: int = 0
) -> Path:
    """Save `count` JPEG and PNG photos of (height, width) px in class folders, identical on every call."""
    for number in range(count):
        path = folder / f"class{number % classes}" / f"img{number}.{'png' if number % 5 == 4 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_photo(*size, number, texture)).save(path, quality=92)
        os.utime(path, ns=(10**18, 10**18))
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hashes(output: Path, with_markers: bool = True) -> dict[str, str]:
    """Return the SHA-256 of every tar, index, manifest, card and (optionally) marker by relative path.

    Markers contain the modification times of the photos.
    """
    found = {}
    for path in sorted(output.rglob("*")):
        is_ours = (
            path.suffix in (".tar", ".idx", ".json", ".md") and path.name != _STATS and not path.name.startswith(".")
        )
        is_marker = path.suffix == ".json" and path.name != "manifest.json"
        if is_ours and (with_markers or not is_marker):
            found[str(path.relative_to(output))] = sha256(path)
    return found


def partial_files(output: Path, undisturbed: dict[str, str]) -> list[Problem]:
    """Report files that have their final name but not the content of the undisturbed run."""
    found = hashes(output).items()
    return [("half_written", f"{name} is incomplete") for name, digest in found if undisturbed.get(name) != digest]


def differences(output: Path, undisturbed: dict[str, str]) -> list[Problem]:
    """Report missing, different and temporary files after a successful run."""
    found = hashes(output)
    problems = [("samples_lost", f"{name} is missing") for name in sorted(undisturbed.keys() - found.keys())]
    different = [name for name, digest in found.items() if undisturbed.get(name) != digest]
    problems += [("silent", f"{name} differs from the undisturbed run") for name in different]
    return problems + temporary_files(output)


def temporary_files(folder: Path) -> list[Problem]:
    return [("half_written", f"{path} was left behind") for path in folder.rglob("*.tmp")]


def wait_for_group(pgid: int) -> None:
    """Wait until every process of a group has exited. On a timeout, kill the group and raise RuntimeError."""
    deadline_s = time.monotonic() + CASE_TIMEOUT_S / 5
    while any(_is_in_group(process, pgid) for process in psutil.process_iter()):
        if time.monotonic() > deadline_s:
            with suppress(ProcessLookupError):
                os.killpg(pgid, signal.SIGKILL)
            raise RuntimeError(f"processes of a killed run (group {pgid}) are still alive")
        time.sleep(0.01)


def _is_in_group(process: psutil.Process, pgid: int) -> bool:
    try:
        return os.getpgid(process.pid) == pgid and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
