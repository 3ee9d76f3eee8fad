"""Recognise folders that hold HR and LR images below them, by the folders' names."""

from collections.abc import Sequence
from dataclasses import dataclass

from shardgen.planning.sources import Photo
from srshards.errors import UsageError
from srshards.format import Address
from srshards.pair_names import is_hr_name, is_lr_name, scale_of_folder
from srshards.storage.store import list_folders, storage_of


@dataclass(frozen=True)
class Roots:
    """The HR folder and the LR folders. If `is_shared`, HR and LR images are in the same one."""

    hr: Address
    lrs: tuple[Address, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_shared(self) -> bool:
        return self.lrs == (self.hr,)


def find_roots(hr: Address, lrs: Sequence[Address]) -> Roots:
    """Return the folders passed or, if one folder was passed for both, those below it with names like `GT` and `LQ`.

    UsageError when several folders below it are named like HR folders.
    """
    lrs = tuple(lrs) or (hr,)
    if any(is_same(hr, lr) for lr in lrs):
        if len(lrs) > 1:
            raise UsageError(f"--lr {hr} is also --hr; pass the folders of LR images, or only this one for both")
        names = list_folders(hr)
        hr_names, lr_names = list(filter(is_hr_name, names)), list(filter(is_lr_name, names))
        if len(hr_names) > 1 and lr_names:
            raise UsageError(
                f"{hr} has several folders of HR images ({', '.join(hr_names)}); pass one as --hr and its LR as --lr"
            )
        if hr_names and lr_names:
            found = Roots(hr / hr_names[0], tuple(hr / name for name in lr_names))
            note = f"{hr}: HR is read from {hr_names[0]}, LR from {', '.join(lr_names)}"
            return Roots(found.hr, found.lrs, (note,))
        lrs = (hr,)
    return Roots(hr, lrs)


def is_same(one: Address, other: Address) -> bool:
    """Return whether two addresses are the same, as far as their text says."""
    return path_inside(one, other) == ""


def path_inside(folder: Address, inner: Address) -> str | None:
    """Return the path of `inner` relative to `folder`; None if it is elsewhere. An empty string for the same folder."""
    outer_path, path = (str(storage_of(each).absolute(each)).rstrip("/") + "/" for each in (folder, inner))
    return path[len(outer_path) :].rstrip("/") if path.startswith(outer_path) else None


def split_by_scale(photos: Sequence[Photo]) -> dict[str, list[Photo]]:
    """Return images by the first folder of their path, if all these folders state a scale; otherwise an empty dict.

    Their paths are relative to that folder.
    """
    parts: dict[str, list[Photo]] = {}
    for photo in photos:
        folder, separator, rest = photo.path.partition("/")
        if folder not in parts:
            if not separator or scale_of_folder(folder) is None:
                return {}
            parts[folder] = []
        parts[folder].append(photo._replace(path=rest))
    return parts
