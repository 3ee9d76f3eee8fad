"""Find the weights files of metrics and losses, which are downloaded by the user, never by a command."""

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch

from srshards.errors import UsageError
from trainer.weights_table import WEIGHTS_FILES, WeightsFile

_BLOCK_BYTES = 1 << 20


def find_files(needed: Mapping[str, Sequence[WeightsFile]], weights: Path | None, option: str) -> dict[str, Path]:
    """Return the files that metrics or losses need, by file name: in `weights` if they are there, else in the caches.

    `needed` has the files by metric or loss. `weights`, the value of `option`, is a folder or one of the files. The
    caches are those to which pyiqa and torchvision download. UsageError if any file is missing or damaged: one line for
    each, with the command that downloads it.
    """
    if weights is not None:
        _check(weights, option)
    files = {file.name: file for of_name in needed.values() for file in of_name}
    found = {file.name: _locate(file, weights) for file in files.values()}
    faults = {name: fault for name, path in found.items() if (fault := _fault(path, files[name]))}
    if faults:
        lines = [
            f"{name} ({files[name].size}) {fault}; run: curl -fL --create-dirs -o "
            f"{shlex.quote(str(_destination(files[name], weights)))} {files[name].url}"
            for name, fault in faults.items()
        ]
        affected = listed(name for name in needed if any(file.name in faults for file in needed[name]))
        first = f"without these files, {affected} cannot be computed; fetch them, or pass a folder that has them with "
        raise UsageError("\n  ".join([f"{first}{option}:", *lines]))
    return {name: path for name, path in found.items() if path is not None}


def listed(names: Iterable[str]) -> str:
    """Return e.g. `lpips, dists and niqe`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _check(weights: Path, option: str) -> None:
    """Raise UsageError unless `weights` is a folder, or a file by the name of a published one."""
    if weights.is_dir():
        return
    if not weights.is_file():
        raise UsageError(f"{option} {weights}: no such file or folder; pass a folder that has the files")
    if weights.name not in WEIGHTS_FILES:
        raise UsageError(
            f"{option} {weights}: no published file has this name; pass a folder, or a file by its published name: "
            f"{', '.join(WEIGHTS_FILES)}"
        )


def _locate(file: WeightsFile, weights: Path | None) -> Path | None:
    """Return the path of a file, or None if it does not exist."""
    given = weights and (weights / file.name if weights.is_dir() else weights)
    cached = Path(torch.hub.get_dir(), file.cache, file.name)
    return next((path for path in (given, cached) if path and path.name == file.name and path.is_file()), None)


def _destination(file: WeightsFile, weights: Path | None) -> Path:
    return weights / file.name if weights and weights.is_dir() else Path(torch.hub.get_dir(), file.cache, file.name)


def _fault(path: Path | None, file: WeightsFile) -> str | None:
    """Return what is wrong with a file; None if it is the published one, as far as its digest is known.

    UsageError if it cannot be read.
    """
    if path is None:
        return "is missing"
    try:
        status = path.stat()
        start = _sha256(path, status.st_mtime_ns, status.st_size)[: len(file.sha256)]
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror or error}; check its permissions and the disk"
        ) from error
    return None if start == file.sha256 else f"is damaged (SHA-256 of {path}: {start}..., not {file.sha256}...)"


@cache
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    """Return the digest of a version of a file, computed once: a run finds a file of 575 MB first, then loads it."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
