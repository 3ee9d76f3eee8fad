"""The folders of HR, LR and upsampled images with their files, one LR folder per scale."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shardgen.pairs.match import Images
from shardgen.pairs.roots import Roots, path_inside, split_by_scale
from shardgen.pairs.source import list_source
from shardgen.planning.sources import Photo
from srshards.errors import UsageError
from srshards.format import Address


class OptionNames(NamedTuple):
    """The command-line options of the HR, LR and upsampled folders, for messages."""

    hr: str
    lr: str
    up: str


PAIR_OPTIONS = OptionNames("--hr", "--lr", "--up")
VAL_OPTIONS = OptionNames("--val", "--val-lr", "--val-up")


@dataclass(frozen=True)
class Folders:
    """The images of each folder. `num_ignored` and `num_links_skipped` are sums over them."""

    hr: Images
    lrs: tuple[Images, ...]
    ups: tuple[Images, ...]
    num_ignored: int
    num_links_skipped: int


def list_roots(roots: Roots, ups: Sequence[Address], keep_roots: bool, options: OptionNames) -> Folders:
    """List the images of all roots. A parent of folders like `X2` and `X4` becomes these, unless `keep_roots`.

    Images of one root below another one are not images of the latter. UsageError when a root does not exist or has no
    images, or when HR and LR images of several scales are in one folder.
    """
    listings = {address: list_source(address, role, option) for address, role, option in _named(roots, ups, options)}

    def photos(address: Address) -> list[Photo]:
        others = [path_inside(address, other) for other in listings]
        inner = tuple(f"{path}/" for path in others if path)
        listed = listings[address].photos
        return [photo for photo in listed if not photo.path.startswith(inner)] if inner else list(listed)

    hr = Images("HR", roots.hr, photos(roots.hr))
    if roots.is_shared:
        hr = hr if keep_roots else _of_one_scale(hr)
        lrs: tuple[Images, ...] = (Images("LR", hr.root, hr.photos),)
    else:
        lrs = tuple(_per_scale("LR", ((root, photos(root)) for root in roots.lrs), keep_roots))
    upsampled = tuple(_per_scale("upsampled", ((root, photos(root)) for root in ups), keep_roots))
    ignored = sum(listing.num_ignored for listing in listings.values())
    return Folders(hr, lrs, upsampled, ignored, sum(listing.num_links_skipped for listing in listings.values()))


def _named(roots: Roots, ups: Sequence[Address], options: OptionNames) -> Iterable[tuple[Address, str, str]]:
    yield roots.hr, "HR", options.hr
    yield from ((root, "LR", options.lr) for root in roots.lrs if root != roots.hr)
    yield from ((root, "upsampled", options.up) for root in ups)


def _of_one_scale(shared: Images) -> Images:
    parts = split_by_scale(shared.photos)
    if len(parts) > 1:
        folder = shared.root / min(parts)
        raise UsageError(
            f"{shared.root} has HR and LR images of several scales ({', '.join(sorted(parts))}); pack one scale at a "
            f"time, e.g. --hr {folder} --lr {folder}"
        )
    return next((Images("HR", shared.root / name, photos) for name, photos in parts.items()), shared)


def _per_scale(role: str, roots: Iterable[tuple[Address, list[Photo]]], keep_roots: bool) -> Iterable[Images]:
    for root, photos in roots:
        parts = {} if keep_roots else split_by_scale(photos)
        yield from (Images(role, root / name, part) for name, part in sorted(parts.items()))
        if not parts:
            yield Images(role, root, photos)
