"""The inputs of `pack`: the pairs of HR and LR folders, with the scales and the tile size that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shardgen.generate.headers import Headers
from shardgen.generate.inputs import Inputs, refuse_overlap
from shardgen.pairs.find import PairListing, find_pairs
from shardgen.pairs.folders import VAL_OPTIONS
from shardgen.pairs.pair import Pair
from shardgen.planning.config import Config, ImageRoots, PairSettings
from shardgen.planning.sources import Listing
from shardgen.planning.tile_counts import inspected_photos
from srshards.errors import UsageError
from srshards.format import MAX_SIZE_PX, Address

_DEFAULT_TILE_PX = 512
_MIN_DEFAULT_TILE_PX = 128


@dataclass(frozen=True)
class PairFolders:
    """The folders of HR images, LR images and upsampled images, as `find_pairs` takes them."""

    hr: Address
    lrs: tuple[Address, ...] = ()
    ups: tuple[Address, ...] = ()


@dataclass(frozen=True)
class PackRequest:
    """The options of `pack`. `settings` are the other fields of `Config`; `size` is None for the default."""

    output: Address
    train: PairFolders
    val: PairFolders | None = None
    size: int | None = None
    up: bool = True
    pattern: str | None = None
    meta_info: "Address | None" = None
    skip_unpaired: bool = False
    accept_misaligned: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def list_pairs(request: PackRequest, exclude: Path | None = None) -> Inputs:
    """Find the pairs. Those whose HR image is in the file `exclude` are left out, but not those of `request.val`.

    UsageError when folders are missing, pairs are not certain, or the validation pairs lack a scale.
    """
    found = _find(request.train, request, meta_info=request.meta_info, exclude=exclude)
    found_val = None
    if request.val is not None:
        found_val = _find(request.val, request, options=VAL_OPTIONS)
        refuse_overlap(found.hr_root, found_val.hr_root, "--hr")
    has_ups = request.up and bool(found.up_roots)
    if found_val:
        _require_same_images(found, found_val, has_ups)
    pairs = PairSettings(
        _roots(found, found.scales, has_ups),
        _roots(found_val, found.scales, has_ups) if found_val else None,
        request.accept_misaligned,
    )
    config = Config(
        input=found.hr_root,
        output=request.output,
        scales=found.scales,
        size=_DEFAULT_TILE_PX if request.size is None else request.size,
        fit="tile",
        up=request.up,
        val=found_val.hr_root if found_val else None,
        pairs=pairs,
        **request.settings,
    )
    listing, headers = _listing(found, has_ups), Headers()
    if request.size is None:
        config = replace(config, size=_default_size(listing, config, headers))
    notes = (*found.notes, *(found_val.notes if found_val else ()))
    val_listing = _listing(found_val, has_ups) if found_val else None
    return Inputs(config, listing, val_listing, found.excluded, notes, headers)


def _find(folders: PairFolders, request: PackRequest, **options: Any) -> PairListing:
    return find_pairs(
        folders.hr, folders.lrs, folders.ups, request.pattern, skip_unpaired=request.skip_unpaired, **options
    )


def _require_same_images(train: PairListing, val: PairListing, has_ups: bool) -> None:
    if missing := set(train.scales) - set(val.scales):
        scales = ", ".join(f"{scale}x" for scale in sorted(missing))
        raise UsageError(
            f"the validation pairs of {val.hr_root} have no LR images at {scales}; add them, or omit that scale from "
            "--lr"
        )
    if has_ups and not val.up_roots:
        raise UsageError(
            f"the training pairs have upsampled images, but the validation pairs of {val.hr_root} have none; pass "
            "their folder as --val-up, or --no-up to store none"
        )


def _roots(found: PairListing, scales: Sequence[int], has_ups: bool) -> ImageRoots:
    ups = found.up_roots if has_ups else {}
    return ImageRoots({s: found.lr_roots[s] for s in scales}, {s: ups[s] for s in scales if s in ups})


def _listing(found: PairListing, has_ups: bool) -> Listing[Pair]:
    pairs = found.pairs if has_ups else [replace(pair, ups=()) for pair in found.pairs]
    return Listing(pairs, found.num_ignored, found.num_links_skipped)


def _default_size(listing: Listing[Pair], config: Config, headers: Headers) -> int:
    """Return the edge of the tiles in px: that of HR if all are equal squares, otherwise 512 or what the smallest fits.

    Sizes are those of the first images of the plan's order, whose headers are also needed to estimate the number of
    tiles: the headers of all would take longer than the rest of planning. Smaller images among the others are skipped.
    """
    sizes = [size for size in headers.sizes(config.input, inspected_photos(listing.photos, config)) if size]
    if not sizes:
        return _DEFAULT_TILE_PX
    edges = {edge for size in sizes for edge in size}
    if len(edges) == 1 and min(edges) <= MAX_SIZE_PX:
        return max(edges)
    return max(min(_DEFAULT_TILE_PX, *edges), _MIN_DEFAULT_TILE_PX)
