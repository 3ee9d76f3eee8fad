"""Find the pairs of HR and LR folders by their names; docs/reference/pairs.md describes the rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shardgen.pairs.folders import PAIR_OPTIONS, Folders, OptionNames, list_roots
from shardgen.pairs.listed import listed_pairs, require_listed
from shardgen.pairs.match import Images
from shardgen.pairs.match_folders import Counterparts, LrFolder, Selection, match_lr, match_up
from shardgen.pairs.meta_info import MetaInfo, read_meta_info
from shardgen.pairs.names import parse_pattern
from shardgen.pairs.pair import Pair
from shardgen.pairs.roots import Roots, find_roots, is_same
from shardgen.pairs.scales import scale_of_lr, scale_of_up
from shardgen.pairs.unpaired import Unpaired
from shardgen.planning.exclusion import Exclusion, leave_out
from shardgen.planning.sources import Listing
from srshards.errors import UsageError
from srshards.format import Address, scale_folder


@dataclass(frozen=True)
class PairListing:
    """The pairs of an HR folder and its LR folders, sorted by path, and the folders they are in.

    The roots may be folders below those passed, e.g. `scale_4x` or `GT`. Every pair has an LR image at every scale of
    `lr_roots`, and an upsampled one at every scale of `up_roots`, which is empty or has the same scales. `num_ignored`
    counts other files; `notes` are sentences about choices that the user should know of.
    """

    pairs: list[Pair]
    hr_root: Address
    lr_roots: dict[int, Address]
    up_roots: dict[int, Address]
    num_ignored: int = 0
    num_links_skipped: int = 0
    notes: tuple[str, ...] = ()
    excluded: Exclusion | None = None

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales of the LR images, in ascending order."""
        return tuple(sorted(self.lr_roots))


def find_pairs(
    hr: Address,
    lrs: Sequence[Address] = (),
    ups: Sequence[Address] = (),
    pattern: str | None = None,
    *,
    meta_info: "Address | None" = None,
    exclude: Path | None = None,
    skip_unpaired: bool = False,
    options: OptionNames = PAIR_OPTIONS,
) -> PairListing:
    """Return the pairs of an HR folder and its LR folders, one per scale or their parent.

    `lrs` may be empty when HR and LR are in the same folder. `pattern` (`--pattern`) describes names that are not
    recognised, `meta_info` (`--meta-info`) is a BasicSR text file that lists the pairs to use, `exclude` a file of HR
    paths to leave out. Images without a counterpart are an error, unless `skip_unpaired` (`--skip-unpaired`) leaves
    them out. `options` are those of the folders, for messages about missing ones.

    Only names are used, except for the headers of a few pairs, from which the scales follow. UsageError for folders
    that are missing or whose pairs are not certain; StoreError when a store's requests fail.
    """
    listed = None if meta_info is None else read_meta_info(meta_info)
    lists_lr = listed is not None and listed.has_lr
    roots = Roots(hr, tuple(lrs) or (hr,)) if lists_lr else find_roots(hr, lrs)
    own_ups = [up for up in ups if not any(is_same(up, lr) for lr in roots.lrs)]  # not in the LR folder
    folders = list_roots(roots, own_ups, keep_roots=lists_lr, options=options)
    if listed:
        require_listed(listed, folders.hr)
    selection, excluded = _select(folders.hr, pattern, listed, exclude)
    unpaired, notes = Unpaired(), list(roots.notes)
    if listed and lists_lr:
        found = [listed_pairs(listed, folders.hr, folders.lrs, selection.is_used)]
    else:
        found = [match_lr(folders.hr, lr, roots.is_shared, selection, unpaired, notes) for lr in folders.lrs]
    by_scale = _by_scale(found, folders.hr)
    ups_by_scale = _ups_by_scale(folders, by_scale, selection, unpaired)
    if ups and not ups_by_scale:
        raise UsageError(f"no upsampled images in {ups[0]}: expected names like img1_upsampled_4x.png; omit --up")
    pairs = _pairs(by_scale, ups_by_scale, unpaired)
    if not skip_unpaired:
        unpaired.refuse()
    if not pairs:
        raise UsageError(f"no HR image has all its LR images: {unpaired}; add the missing images")
    return PairListing(
        pairs,
        folders.hr.root,
        {scale: folder.lr.root for scale, folder in by_scale.items()},
        {scale: up.root for scale, up in ups_by_scale.items()},
        folders.num_ignored,
        folders.num_links_skipped,
        (*notes, *unpaired.notes),
        excluded,
    )


def _select(
    hr: Images, pattern: str | None, listed: MetaInfo | None, exclude: Path | None
) -> tuple[Selection, Exclusion | None]:
    used, excluded = {line.path for line in listed.lines} if listed else None, None
    if exclude is not None:
        remaining, excluded = leave_out(Listing(list(hr.photos)), exclude, "--hr")
        paths = {photo.path for photo in remaining.photos}
        used = paths if used is None else used & paths
    is_used = None if used is None else lambda photo: photo.path in used
    return Selection(None if pattern is None else parse_pattern(pattern), is_used, listed is not None), excluded


def _by_scale(found: Sequence[LrFolder], hr: Images) -> dict[int, LrFolder]:
    """Return the LR folders by their scale, in ascending order. UsageError when two of them have the same."""
    by_scale: dict[int, LrFolder] = {}
    for folder in found:
        scale = scale_of_lr(folder.lr, folder.hr, hr.root)
        if scale in by_scale:
            raise UsageError(
                f"{by_scale[scale].lr.root} and {folder.lr.root} have scale {scale}; pass one folder per scale as --lr"
            )
        by_scale[scale] = folder
    return dict(sorted(by_scale.items()))


def _ups_by_scale(
    folders: Folders, by_scale: Mapping[int, LrFolder], selection: Selection, unpaired: Unpaired
) -> dict[int, Counterparts]:
    """Return the upsampled images of every scale: of the folders passed or, if there are none, of the LR folders."""
    ups = {scale: folder.up for scale, folder in by_scale.items() if folder.up}
    if folders.ups:
        ups = {}
        template = next(iter(by_scale.values())).naming.hr
        for images in folders.ups:
            up = match_up(folders.hr, images, template, selection, unpaired)
            scale = scale_of_up(up, by_scale)
            if scale in ups:
                raise UsageError(
                    f"{ups[scale].root} and {up.root} are both for scale {scale}; pass one folder per scale"
                )
            ups[scale] = up
    if ups and (missing := by_scale.keys() - ups.keys()):
        raise UsageError(
            f"there are upsampled images for scale {', '.join(map(str, sorted(ups)))}, but none for "
            f"{', '.join(map(str, sorted(missing)))}; pass those of every scale as --up, e.g. "
            f"{scale_folder(min(missing))}, or pack one scale at a time"
        )
    return dict(sorted(ups.items()))


def _pairs(by_scale: Mapping[int, LrFolder], ups: Mapping[int, Counterparts], unpaired: Unpaired) -> list[Pair]:
    """Return the HR images that have an LR image, and if there are any an upsampled one, at every scale."""
    hr = {path: photo for folder in by_scale.values() for path, photo in folder.hr.items()}
    for up in ups.values():
        unpaired.add(
            (photo for path, photo in hr.items() if path not in up.by_hr), "HR image", f"upsampled image in {up.root}"
        )
    lr_paths = [(scale, folder.lr.by_hr) for scale, folder in by_scale.items()]
    up_paths = [(scale, up.by_hr) for scale, up in ups.items()]
    complete = sorted(path for path in hr if all(path in by_hr for _, by_hr in lr_paths + up_paths))
    return [
        Pair(
            path,
            hr[path].size,
            hr[path].mtime_ns,
            tuple((scale, by_hr[path]) for scale, by_hr in lr_paths),
            tuple((scale, by_hr[path]) for scale, by_hr in up_paths),
        )
        for path in complete
    ]
