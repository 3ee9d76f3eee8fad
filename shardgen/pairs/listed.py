"""Pairs listed in a BasicSR text file."""

from collections.abc import Callable, Sequence

from shardgen.pairs.match import Images
from shardgen.pairs.match_folders import Counterparts, LrFolder
from shardgen.pairs.meta_info import Line, MetaInfo
from shardgen.planning.sources import Photo, shown
from srshards.errors import UsageError


def require_listed(listed: MetaInfo, hr: Images) -> None:
    """Raise UsageError if HR images in the file do not exist."""
    paths = {photo.path for photo in hr.photos}
    _refuse_missing(listed, [(line, line.path) for line in listed.lines if line.path not in paths], hr)


def listed_pairs(
    listed: MetaInfo, hr: Images, lrs: Sequence[Images], is_used: Callable[[Photo], bool] | None
) -> LrFolder:
    """Return the pairs of a file that lists HR and LR images. UsageError if LR images in it do not exist."""
    if len(lrs) != 1:
        raise UsageError(f"{listed.file} lists the LR image of each HR image; pass one --lr, that of these paths")
    lr = {photo.path: photo for photo in lrs[0].photos}
    missing = [(line, line.lr) for line in listed.lines if line.lr is not None and line.lr not in lr]
    _refuse_missing(listed, missing, lrs[0])
    lr_of = {line.path: lr[line.lr] for line in listed.lines if line.lr is not None}
    used = {photo.path: photo for photo in hr.photos if is_used is None or is_used(photo)}
    return LrFolder(used, Counterparts(lrs[0].root, {path: lr_of[path] for path in used}))


def _refuse_missing(listed: MetaInfo, missing: Sequence[tuple[Line, str]], images: Images) -> None:
    if missing:
        (line, path), *others = missing
        more = f", nor are the images of {len(others):,} more lines" if others else ""
        raise UsageError(
            f"{listed.file}, line {line.number}: {shown(path)} is not in {images.root}{more}; pass the "
            f"{images.role} folder that the paths start from as --{images.role.lower()}, or remove these lines"
        )
