"""Match the names of LR images with those of HR images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from unicodedata import is_normalized, normalize

from shardgen.pairs.names import Index, Naming, index_names
from shardgen.planning.sources import Photo, shown
from srshards.errors import UsageError
from srshards.format import Address

NUM_EXAMPLES = 3  # paths that a message names


@dataclass(frozen=True)
class Images:
    """Images of a folder. `role` (`HR`, `LR`) and `root` are for messages."""

    role: str
    root: Address
    photos: Sequence[Photo]


@dataclass(frozen=True)
class Matching:
    """The images of an HR folder and an LR folder, indexed by the names that they should have in common.

    `left_out` has the HR images that are not to be used, `up` and `variants` other images of the LR folder.
    `unrecognised` match none of the naming's templates.
    """

    naming: Naming
    hr: Index
    left_out: Index
    lr: Index
    up: Index
    variants: Index
    unrecognised: tuple[Photo, ...]

    @cached_property
    def names(self) -> set[str]:
        """The names that both folders have."""
        return self.hr.by_name.keys() & self.lr.by_name.keys()

    @property
    def hr_alone(self) -> list[Photo]:
        return [photo for name, photo in self.hr.by_name.items() if name not in self.lr.by_name]

    @property
    def lr_alone(self) -> list[Photo]:
        return self.without_hr(self.lr)

    def without_hr(self, index: Index) -> list[Photo]:
        """Return the images of an index, such as `up`, whose name no HR image has."""
        hr, left_out = self.hr.by_name, self.left_out.by_name
        return [photo for name, photo in index.by_name.items() if name not in hr and name not in left_out]

    @property
    def case_hint(self) -> str:
        """A remark if images would not be alone if the case of letters, and how Unicode encodes them, were ignored.

        Otherwise an empty string. macOS and some archives store accented letters as two characters (NFD).
        """
        hr = {_folded(name): photo for name, photo in self.hr.by_name.items() if name not in self.lr.by_name}
        alone = (item for item in self.lr.by_name.items() if item[0] not in self.hr.by_name) if hr else ()
        pairs = [(hr[_folded(name)], photo) for name, photo in alone if _folded(name) in hr]
        if not pairs:
            return ""
        hr_path, lr_path = (shown(photo.path) for photo in min(pairs))
        what = "upper and lower case differ"
        if is_normalized("NFC", hr_path) != is_normalized("NFC", lr_path):
            what = "accented letters are encoded differently, as Unicode NFC and NFD,"
        return f" ({what} in {hr_path} and {lr_path})"

    @property
    def is_complete(self) -> bool:
        """Whether every image of both folders belongs to exactly one pair."""
        complete = len(self.names) == len(self.hr.by_name) and not (self.lr_alone or self.unrecognised)
        return complete and not (self.hr.duplicates or self.lr.duplicates)


def _folded(name: str) -> str:
    return normalize("NFC", name).casefold()


def match_images(
    hr: Images, lr: Images, namings: Sequence[Naming], is_used: Callable[[Photo], bool] | None, is_shared: bool
) -> Matching:
    """Return the matching by the naming that leaves no image alone or, if there is none, by the only one with pairs.

    `is_used` selects HR images; None selects all. If `is_shared`, the HR images are those of `lr` that are not LR
    images. UsageError when there are no pairs, or when several namings give some.
    """
    matchings, index_hr = [], _HrIndexer(hr.photos, is_used)
    for naming in namings:
        matching = _match(lr.photos, naming, None if is_shared else index_hr, is_used)
        if matching.is_complete and matching.names:
            return matching
        matchings.append(matching)
    without_pairs = [matching for matching in matchings if not matching.names]
    matchings = [matching for matching in matchings if matching.names]
    if not matchings:
        if is_shared and len(namings) > 1:  # not by --pattern
            raise UsageError(
                f"no pairs: HR {hr.root} has {examples(hr.photos)}, but no LR images of them; pass their folder as "
                "--lr (--val-lr for --val)"
            )
        swapped = _HrIndexer(lr.photos, None)
        if any(_match(hr.photos, naming, swapped, None).names for naming in namings):
            raise UsageError(f"no pairs: HR {hr.root} has the LR images of LR {lr.root}; swap --hr and --lr")
        hints = filter(None, (matching.case_hint for matching in without_pairs))
        raise UsageError(_no_pairs(hr, lr, namings, next(hints, "")))
    if len(matchings) > 1:
        found = "; ".join(f"{len(matching.names):,} by {matching.naming}" for matching in matchings)
        raise UsageError(
            f"the names in {hr.root} and {lr.root} give pairs by several rules, none of which covers all images: "
            f"{found}; pass one of them, e.g. --pattern '{matchings[0].naming.hr}:{matchings[0].naming.lr}'"
        )
    return matchings[0]


class _HrIndexer:
    """Indexes of HR images, computed once for each template: most namings share `{name}`."""

    def __init__(self, photos: Sequence[Photo], is_used: Callable[[Photo], bool] | None) -> None:
        self._photos = photos
        self._is_used = is_used
        self._indexes: dict[str, tuple[Index, Index]] = {}

    def __call__(self, template: str) -> tuple[Index, Index]:
        if template not in self._indexes:
            self._indexes[template] = _index_used(self._photos, template, self._is_used)
        return self._indexes[template]


def _index_used(photos: Sequence[Photo], template: str, is_used: Callable[[Photo], bool] | None) -> tuple[Index, Index]:
    """Return the indexes of the used and of the other images."""
    if is_used is None:
        return index_names(photos, template), Index()
    used = [is_used(photo) for photo in photos]
    chosen = [photo for photo, yes in zip(photos, used, strict=True) if yes]
    others = [photo for photo, yes in zip(photos, used, strict=True) if not yes]
    return index_names(chosen, template), index_names(others, template)


def _match(
    photos: Sequence[Photo], naming: Naming, index_hr: _HrIndexer | None, is_used: Callable[[Photo], bool] | None
) -> Matching:
    lr = index_names(photos, naming.lr)
    up = index_names(lr.rest, naming.up)
    variants = index_names(up.rest, naming.variants)
    if index_hr is None:
        hr, left_out = _index_used(variants.rest, naming.hr, is_used)
        unrecognised = hr.rest
    else:
        hr, left_out = index_hr(naming.hr)
        unrecognised = variants.rest
    return Matching(naming, hr, left_out, lr, up, variants, tuple(unrecognised))


def examples(photos: Sequence[Photo]) -> str:
    """Return the first few paths, for messages."""
    dots = ", ..." if len(photos) > NUM_EXAMPLES else ""
    return ", ".join(shown(photo.path) for photo in sorted(photos)[:NUM_EXAMPLES]) + dots


def _no_pairs(hr: Images, lr: Images, namings: Sequence[Naming], hint: str) -> str:
    found = " and ".join(f"{images.role} {images.root} has {examples(images.photos)}" for images in (hr, lr)) + hint
    if len(namings) == 1:
        return f"no pairs by --pattern ({namings[0]}): {found}; pass another --pattern"
    return (
        f"no pairs: {found}; for images in equal folders with other names than those recognised (0001.png, 0001x4.png, "
        "0001_lr_4x.png), pass --pattern, e.g. '{name}x{scale}' or '{name}_HR:{name}_LR'"
    )
