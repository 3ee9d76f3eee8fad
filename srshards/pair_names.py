"""Recognise folders of HR and of LR images, and pairs among photos, by names; docs/reference/pairs.md states the rules.

The rules for pairs are such that no folder of photos meets them by chance: it takes a pair of derived images, or as
many LR images as there are others.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from srshards.format import MAX_SCALE, MIN_SCALE, SCALE_FOLDER, Address
from srshards.storage.store import StoreError, list_folders

SCALE_DIGIT = f"[{MIN_SCALE}-{MAX_SCALE}]"  # a regular expression

# The scale in a folder's name: `scale_4x`, `X4`, `X4_sub`, `LRbicx4`, `DIV2K_train_LR_bicubic_X4.lmdb`, `image_SRF_4`.
_SCALE_IN_FOLDER = re.compile(
    rf"(?:^|[^a-z0-9])(?:scale_?({SCALE_DIGIT})x?|({SCALE_DIGIT})x|srf_({SCALE_DIGIT})|(?:lr[a-z]*|lq)?x({SCALE_DIGIT}))(?:[^a-z0-9]|$)",
    re.IGNORECASE,
)
_ENDING = r"(?:_sub)?(?:\.lmdb)?"
_HR_FOLDER = re.compile(rf"(?:.*[_-])?(?:hr|gt|hq)(?:mod[0-9]+)?{_ENDING}", re.IGNORECASE)
_TRACK = "(?:[_-]?(?:bic|bicubic|unknown|mild|difficult))?"  # of DIV2K
_LR_FOLDER = re.compile(rf"(?:.*[_-])?(?:lr|lq){_TRACK}(?:[_-]?x{SCALE_DIGIT})?{_ENDING}", re.IGNORECASE)

# Names written by `shardgen unpack` and by older scripts.
_DERIVED = re.compile(rf"(?P<name>.+)_(?P<kind>lr|upsampled)[0-9]*_(?P<scale>{SCALE_DIGIT})x")
_SCALED = re.compile(rf"(?P<name>.+)x(?P<scale>{SCALE_DIGIT})[md]?")
_HR_ENDING = "_hr"


class _Stem(NamedTuple):
    """A path without its extension, in two parts."""

    folder: str  # "" for the root itself
    name: str

    @property
    def parts(self) -> list[str]:
        return [*self.folder.split("/"), self.name] if self.folder else [self.name]

    @property
    def path(self) -> str:
        return "/".join(self.parts)


class FoundPairs(NamedTuple):
    """The number of images that are not photos, the path of one of them, and the folders of the pairs.

    The path has no extension. HR and LR are in one folder if `hr` equals `lr`; `hr` is None if HR is elsewhere.
    """

    num_images: int
    example: str
    hr: "Address | None"
    lr: Address


def is_hr_name(name: str) -> bool:
    """Return whether a folder's name says that it holds HR images: `HR`, `GT`, `hq`, `DIV2K_train_HR`, ..."""
    return _HR_FOLDER.fullmatch(name) is not None


def is_lr_name(name: str) -> bool:
    """Return whether a folder's name says that it holds LR images: `LR`, `LQ`, `LRbicx4`, `DIV2K_train_LR_mild`, ..."""
    return _LR_FOLDER.fullmatch(name) is not None


def scale_of_folder(name: str) -> int | None:
    """Return the scale that a folder's name states; None if it states none."""
    match = _SCALE_IN_FOLDER.search(name)
    return int(next(filter(None, match.groups()))) if match else None


def pairs_among(photos: Iterable[str], root: Address) -> FoundPairs | None:
    """Return the pairs among photos, given by their paths below `root`; None if they are photos by their names."""
    stems = [_Stem(folder, name.rpartition(".")[0]) for folder, _, name in (path.rpartition("/") for path in photos)]
    return _derived_images(stems, root) or _folders(stems, root) or _scaled_images(stems, root)


def _derived_images(stems: Sequence[_Stem], root: Address) -> FoundPairs | None:
    """Find names like `img1_lr_4x`: an LR image with its upsampled one, or as many as there are other images."""
    derived, kinds = [], defaultdict(set)
    for stem in stems:
        if match := _DERIVED.fullmatch(stem.name):
            derived.append((stem, match["name"]))
            kinds[stem.folder, match["name"], match["scale"]].add(match["kind"])
    if not derived or (2 * len(derived) < len(stems) and max(map(len, kinds.values())) < 2):
        return None
    example, name = min(derived)
    hr, lr = _roots(example, name, stems, root)
    return FoundPairs(len(derived), example.path, hr, lr)


def _scaled_images(stems: Sequence[_Stem], root: Address) -> FoundPairs | None:
    """Find names like `0001x4` of another image `0001`, or in a folder named for LR or that scale."""
    scaled = [(stem, match) for stem in stems if (match := _SCALED.fullmatch(stem.name))]
    names = {stem.name for stem in stems}
    lr = [
        (stem, match["name"])
        for stem, match in scaled
        if match["name"] in names or _states_lr([root.parent.name, root.name, *stem.parts[:-1]], int(match["scale"]))
    ]
    if not lr or 2 * len(lr) < len(stems):
        return None
    example, name = min(lr)
    return FoundPairs(len(lr), example.path, *_roots(example, name, stems, root))


def _states_lr(folders: Iterable[str], scale: int) -> bool:
    return any(is_lr_name(folder) or scale_of_folder(folder) == scale for folder in folders)


def _folders(stems: Sequence[_Stem], root: Address) -> FoundPairs | None:
    """Find a folder like `lq` beside one like `hq`, with an HR image for at least half of its images."""
    if is_lr_name(root.name) and (hr := next(filter(is_hr_name, _folders_beside(root)), None)):
        return FoundPairs(len(stems), min(stems).path, root.parent / hr, root)
    folders = {stem.folder for stem in stems}
    above = {"/".join(parts[:end]) for parts in (f.split("/") for f in folders) for end in range(1, len(parts) + 1)}
    for lr in sorted(folder for folder in above if is_lr_name(folder.rpartition("/")[2])):
        parent = lr.rpartition("/")[0]
        for hr in sorted(f for f in above if f.rpartition("/")[0] == parent and is_hr_name(f.rpartition("/")[2])):
            inside = [stem for stem in stems if f"{stem.folder}/".startswith(f"{lr}/")]
            names = {stem.name for stem in stems if f"{stem.folder}/".startswith(f"{hr}/")}
            if 2 * sum(bool(names & _hr_names(stem.name)) for stem in inside) >= len(inside):
                return FoundPairs(len(inside), min(inside).path, root / hr, root / lr)
    return None


def _folders_beside(root: Address) -> list[str]:
    try:
        return list_folders(root.parent)
    except (OSError, StoreError):  # often the user may not list the folder or bucket above
        return []


def _hr_names(lr: str) -> set[str]:
    match = _SCALED.fullmatch(lr)
    return {lr, match["name"]} if match else {lr}


def _roots(lr: _Stem, name: str, stems: Sequence[_Stem], root: Address) -> "tuple[Address | None, Address]":
    """Return the HR and LR folders, of which the images have equal paths; HR is None if it is elsewhere."""
    parts = [*lr.parts[:-1], name]
    candidates = [stem.parts for stem in stems if stem.name in (name, name + _HR_ENDING)]
    if not candidates:
        return None, root.joinpath(*(_above_scale(parts[:-1]) or []))
    hr = max(sorted(candidates), key=lambda each: _num_common(each[:-1], parts[:-1]))
    num_common = _num_common(hr[:-1], parts[:-1])
    hr_folder, lr_folder = hr[: len(hr) - 1 - num_common], parts[: len(parts) - 1 - num_common]
    if hr_folder == lr_folder:  # HR and LR are in one folder: that of their scale, if there is one
        scale = next((number for number, part in enumerate(parts) if SCALE_FOLDER.fullmatch(part)), None)
        shared = root.joinpath(*parts[: 0 if scale is None else scale + 1])
        return shared, shared
    above = _above_scale(lr_folder)
    return root.joinpath(*hr_folder), root.joinpath(*(lr_folder if above is None else above))


def _num_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the number of equal parts at the end."""
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if left != right:
            break
        count += 1
    return count


def _above_scale(folders: Sequence[str]) -> Sequence[str] | None:
    """Return the folders above the first one that states a scale; None if there is none."""
    return next((folders[:number] for number, part in enumerate(folders) if scale_of_folder(part) is not None), None)
