"""The scale of an LR folder: the ratio of the sizes in px of its pairs."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from shardgen.pairs.match_folders import Counterparts
from shardgen.pairs.source import read_source
from shardgen.pairs.unpaired import refuse_several_scales
from shardgen.planning.sources import Photo, shown
from srshards.errors import PhotoError, UsageError
from srshards.format import MAX_SCALE, MIN_SCALE, Address, scale_folder
from srshards.imaging.photo import upright_size
from srshards.pair_names import scale_of_folder
from srshards.storage.store import storage_of
from srshards.terminal.text import plural

NUM_INSPECTED = 16  # pairs per LR folder; a pair of another scale is recorded as failed when its shard is built
_AT_ONCE = 8
_IF_RESIZED = "if LR was made from resized copies of the photos, make both anew with `generate`"

Size = tuple[int, int]  # (height, width) in px


class Measured(NamedTuple):
    """The sizes of a pair's images."""

    hr: Photo
    lr: Photo
    hr_size: Size
    lr_size: Size

    @property
    def scale(self) -> int | None:
        """The integer ratio of the sizes, to less than one LR pixel; None if there is none."""
        scale = round(max(self.hr_size) / max(self.lr_size))
        fits = all(abs(hr - lr * scale) < scale for hr, lr in zip(self.hr_size, self.lr_size, strict=True))
        return scale if fits else None

    def __str__(self) -> str:
        (hr_height, hr_width), (lr_height, lr_width) = self.hr_size, self.lr_size
        return (
            f"{shown(self.lr.path)} has {lr_width} x {lr_height} px, its HR image "
            f"{shown(self.hr.path)} {hr_width} x {hr_height} px"
        )


def scale_of_lr(lr: Counterparts, hr: Mapping[str, Photo], hr_root: Address) -> int:
    """Return the scale of an LR folder, from the headers of a few pairs spread over all.

    UsageError when the sizes give no scale, more than one or one outside 2 to 8, and when a name states another scale.
    """
    paths = sorted(lr.by_hr)
    inspected = [(hr[path], lr.by_hr[path]) for path in paths[:: -(-len(paths) // NUM_INSPECTED)]]
    measured = _measure(inspected, hr_root, lr.root)
    scale = _scale_from_sizes(measured, lr.root)
    example = next(pair for pair in measured if pair.scale == scale)
    _refuse_other_scale(scale_of_folder(lr.root.name), scale, f"{lr.root} is named", example)
    for stated, photo in lr.name_scales.items():
        _refuse_other_scale(stated, scale, f"{shown(photo.path)} in {lr.root} is named", example)
    return scale


def scale_of_up(up: Counterparts, scales: Collection[int]) -> int:
    """Return the scale of a folder of upsampled images: that of its name or of its images' names, or the only one.

    UsageError when that is not certain.
    """
    stated = {*filter(None, [scale_of_folder(up.root.name)]), *up.name_scales}
    if not stated and len(scales) == 1:
        return next(iter(scales))
    if len(stated) != 1 or not stated <= set(scales):
        found = f"states {_listed(stated)}" if stated else "does not state a scale"
        raise UsageError(
            f"the name of {up.root} {found}, but LR has {_listed(scales)}; rename the folder, e.g. "
            f"{scale_folder(min(scales))}, or pack one scale at a time"
        )
    return stated.pop()


def _listed(scales: Collection[int]) -> str:
    return " and ".join(f"{scale}x" for scale in sorted(scales))


def _refuse_other_scale(stated: int | None, scale: int, what: str, example: Measured) -> None:
    if stated is not None and stated != scale:
        raise UsageError(
            f"{what} for scale {stated}, but the scale is {scale}: {example}; {_IF_RESIZED}, otherwise rename it or "
            "pass another folder"
        )


def _measure(pairs: Sequence[tuple[Photo, Photo]], hr_root: Address, lr_root: Address) -> list[Measured]:
    """Return the sizes of (HR, LR) pairs, without images that cannot be read, which fail when their shard is built.

    UsageError when none can be read.
    """
    hr_sizes = _sizes(hr_root, [hr for hr, _ in pairs])
    lr_sizes = _sizes(lr_root, [lr for _, lr in pairs])
    measured, reasons = [], []
    for (hr, lr), hr_size, lr_size in zip(pairs, hr_sizes, lr_sizes, strict=True):
        if isinstance(hr_size, PhotoError):
            reasons.append(f"{shown(hr.path)} in {hr_root}: {hr_size}")
        elif isinstance(lr_size, PhotoError):
            reasons.append(f"{shown(lr.path)} in {lr_root}: {lr_size}")
        else:
            measured.append(Measured(hr, lr, hr_size, lr_size))
    if not measured:
        raise UsageError(
            f"none of {plural(len(pairs), 'inspected pair')} can be read, e.g. {reasons[0]}; replace these images"
        )
    return measured


def _sizes(root: Address, photos: Sequence[Photo]) -> list[Size | PhotoError]:
    return list(storage_of(root).map(lambda photo: _size(root, photo), photos, _AT_ONCE))


def _size(root: Address, photo: Photo) -> Size | PhotoError:
    try:
        return upright_size(read_source(root, photo))
    except PhotoError as error:
        return error


def _scale_from_sizes(measured: Sequence[Measured], lr_root: Address) -> int:
    """Return the scale of an LR folder. UsageError when there is none, more than one, or one outside 2 to 8."""
    by_scale: dict[int, Measured] = {}
    for pair in measured:
        if pair.scale is not None:
            by_scale.setdefault(pair.scale, pair)
    if all(min(pair.lr_size) > min(pair.hr_size) for pair in measured):
        raise UsageError(f"LR is larger than HR: {measured[0]}; swap --hr and --lr")
    if not by_scale:
        raise UsageError(
            f"the sizes of HR and LR in {lr_root} do not have an integer ratio: {measured[0]}; pass LR images whose "
            f"edges are 1/{MIN_SCALE} to 1/{MAX_SCALE} of those of HR, or {_IF_RESIZED}"
        )
    refuse_several_scales({scale: pair.lr for scale, pair in by_scale.items()}, lr_root, "--lr")
    ((scale, pair),) = by_scale.items()
    if scale == 1:
        raise UsageError(
            f"LR is as large as HR: {pair}; pass LR images before their enlargement as --lr, and enlarged ones as --up"
        )
    if not MIN_SCALE <= scale <= MAX_SCALE:
        raise UsageError(
            f"{lr_root} has scale {scale}: {pair}; pass LR images of a scale from {MIN_SCALE} to {MAX_SCALE}"
        )
    return scale
