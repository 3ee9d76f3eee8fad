"""Output paths of `upscale`: one per photo, none of which may overwrite other files."""

import os
from collections.abc import Sequence
from pathlib import Path

from srshards.errors import UsageError
from srshards.imaging.provenance import overwrite_refusal
from trainer.inference.photo_files import check_writable, is_photo_name


def result_paths(photos: Sequence[Path], output: Path, factor: int) -> list[Path]:
    """Return a distinct output path for each photo. UsageError if `output` cannot hold them."""
    if is_photo_name(output) and not output.is_dir():
        if len(photos) != 1:
            raise UsageError(f"{output} is a single file, but there are {len(photos)} photos; pass a folder")
        check_writable(output, 1, 1, has_alpha=False)
        return [output]
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; pass a folder, or a file name ending in .png, .jpg or .webp")
    return [output / name for name in _distinct(_short_names(photos), f"_{factor}x.png")]


def _short_names(photos: Sequence[Path]) -> list[Path]:
    """Return the names without extension; if some collide, all are relative to their common folder."""
    stems = [photo.stem for photo in photos]
    if len({stem.casefold() for stem in stems}) == len(stems):  # some file systems are case-insensitive
        return [Path(stem) for stem in stems]
    folders = [Path(os.path.abspath(photo)).parent for photo in photos]
    common = os.path.commonpath(folders)
    return [folder.relative_to(common) / stem for folder, stem in zip(folders, stems, strict=True)]


def _distinct(names: Sequence[Path], ending: str) -> list[Path]:
    """Return the names with the ending; duplicates are numbered from 2."""
    used: set[str] = set()
    distinct = []
    for name in names:
        number, path = 1, name.with_name(name.name + ending)
        while str(path).casefold() in used:
            number += 1
            path = name.with_name(f"{name.name}_{number}{ending}")
        used.add(str(path).casefold())
        distinct.append(path)
    return distinct


def compare_path(result: Path) -> Path:
    """Return the path of the comparison image for a result."""
    return result.with_name(f"{result.stem}_compare.png")


def refuse_to_overwrite(photos: Sequence[Path], results: Sequence[Path]) -> None:
    """Raise UsageError if a result would overwrite an input photo, or a file that this command did not write."""
    # By device and inode, which also catches links and names that differ only in case.
    inputs = set(map(_identity, photos)) - {None}
    for result in results:
        if _identity(result) in inputs:
            raise UsageError(f"{result} is one of the photos and would be overwritten; pass another --output")
        if refusal := overwrite_refusal(result, "trainer upscale"):
            raise UsageError(refusal)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the file's device and inode, or None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
