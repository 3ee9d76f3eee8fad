"""Find the weights files of metrics, which are downloaded by the user, never by a command."""

import hashlib
import shlex
from collections.abc import Iterable
from pathlib import Path

import torch

from srshards.errors import UsageError
from trainer.metrics_table import METRICS, MetricFile

_BLOCK_BYTES = 1 << 20


def find_files(names: Iterable[str], weights: Path | None) -> dict[str, Path]:
    """Return the files that the metrics `names` need, by file name: in `weights` if they are there, else in the caches.

    `weights` is a folder or one of the files. The caches are those to which pyiqa and torchvision download. UsageError
    if any file is missing or damaged: one line for each, with the command that downloads it.
    """
    if weights is not None:
        _check(weights)
    files = {file.name: file for name in names for file in METRICS[name].files}
    found = {file.name: _locate(file, weights) for file in files.values()}
    faults = {name: fault for name, path in found.items() if (fault := _fault(path, files[name]))}
    if faults:
        lines = [
            f"{name} ({files[name].size}) {fault}; run: curl -fL --create-dirs -o "
            f"{shlex.quote(str(_destination(files[name], weights)))} {files[name].url}"
            for name, fault in faults.items()
        ]
        needed = listed(name for name in names if not faults.keys().isdisjoint(_names(name)))
        first = f"without these files, {needed} cannot be measured; fetch them, or pass a folder that has them with "
        raise UsageError("\n  ".join([f"{first}--metric-weights:", *lines]))
    return {name: path for name, path in found.items() if path is not None}


def listed(names: Iterable[str]) -> str:
    """Return e.g. `lpips, dists and niqe`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _check(weights: Path) -> None:
    """Raise UsageError unless `weights` is a folder, or a file by a name that a metric's file has."""
    if weights.is_dir():
        return
    known = [name for metric in METRICS for name in _names(metric)]
    if not weights.is_file():
        raise UsageError(f"--metric-weights {weights}: no such file or folder; pass a folder that has the files")
    if weights.name not in known:
        raise UsageError(
            f"--metric-weights {weights}: no metric reads a file of this name; pass a folder, or a file by its "
            f"published name: {', '.join(known)}"
        )


def _names(metric: str) -> list[str]:
    return [file.name for file in METRICS[metric].files]


def _locate(file: MetricFile, weights: Path | None) -> Path | None:
    """Return the path of a file, or None if it does not exist."""
    given = weights and (weights / file.name if weights.is_dir() else weights)
    cached = Path(torch.hub.get_dir(), file.cache, file.name)
    return next((path for path in (given, cached) if path and path.name == file.name and path.is_file()), None)


def _destination(file: MetricFile, weights: Path | None) -> Path:
    return weights / file.name if weights and weights.is_dir() else Path(torch.hub.get_dir(), file.cache, file.name)


def _fault(path: Path | None, file: MetricFile) -> str | None:
    """Return what is wrong with a file; None if it is the published one, as far as its digest is known.

    UsageError if it cannot be read.
    """
    if path is None:
        return "is missing"
    digest = hashlib.sha256()
    try:
        with path.open("rb") as content:
            while block := content.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror or error}; change its permissions or its disk"
        ) from error
    start = digest.hexdigest()[: len(file.sha256)]
    return None if start == file.sha256 else f"is damaged (SHA-256 of {path}: {start}..., not {file.sha256}...)"
