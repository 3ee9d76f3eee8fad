"""Where the results of `upscale` go: a path of its own for each photo, and none that would replace other files."""

import os
from collections.abc import Sequence
from pathlib import Path

from srshards.errors import UsageError
from srshards.imaging.provenance import overwrite_refusal
from trainer.inference.photo_files import check_writable, is_photo_name


def result_paths(photos: Sequence[Path], output: Path, factor: int) -> list[Path]:
    """A path of its own for the result of each photo. UsageError when `output` cannot hold them."""
    if is_photo_name(output) and not output.is_dir():
        if len(photos) != 1:
            raise UsageError(f"{output} is one file, but there are {len(photos)} photos: name a folder for them")
        check_writable(output, 1, 1, has_alpha=False)
        return [output]
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: name a folder, or a file that ends in .png, .jpg or .webp")
    return [output / name for name in _distinct(_short_names(photos), f"_{factor}x.png")]


def _short_names(photos: Sequence[Path]) -> list[Path]:
    """File names without extension; if some are equal, all with the folders below the one that they have in common."""
    stems = [photo.stem for photo in photos]
    if len({stem.casefold() for stem in stems}) == len(stems):  # some file systems do not tell A from a
        return [Path(stem) for stem in stems]
    folders = [Path(os.path.abspath(photo)).parent for photo in photos]
    common = os.path.commonpath(folders)
    return [folder.relative_to(common) / stem for folder, stem in zip(folders, stems, strict=True)]


def _distinct(names: Sequence[Path], ending: str) -> list[Path]:
    """The names with the ending; those that were there before are numbered from 2 on."""
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
    """Where the comparison of a result goes."""
    return result.with_name(f"{result.stem}_compare.png")


def refuse_to_overwrite(photos: Sequence[Path], results: Sequence[Path]) -> None:
    """UsageError when a result would replace one of the photos, or a file that this command did not write."""
    # By what the disk says, so that links and names in another case are seen through.
    inputs = set(map(_identity, photos)) - {None}
    for result in results:
        if _identity(result) in inputs:
            raise UsageError(f"{result} is one of the photos, and would be overwritten: choose another output")
        if refusal := overwrite_refusal(result, "trainer upscale"):
            raise UsageError(refusal)


def _identity(path: Path) -> tuple[int, int] | None:
    """What the disk knows a file by; None where there is none, or can be none of such a name."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
