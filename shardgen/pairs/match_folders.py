"""Match the folders of LR and of upsampled images with the HR folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shardgen.pairs.match import Images, Matching, examples, match_images
from shardgen.pairs.names import NAMINGS, Index, Naming
from shardgen.pairs.unpaired import Unpaired, refuse_duplicates, refuse_several_scales
from shardgen.planning.sources import Photo
from srshards.format import Address
from srshards.terminal.text import plural

_UP_TEMPLATES = ("{name}", "{name}_upsampled_{scale}x", "{name}x{scale}")


@dataclass(frozen=True)
class Selection:
    """Which HR images are used, and the user's pattern, if any.

    `is_used` is None if all HR images are used. If `is_listed`, a file lists those to use, so that an LR image without
    an HR image is simply not used.
    """

    pattern: Naming | None = None
    is_used: Callable[[Photo], bool] | None = None
    is_listed: bool = False


@dataclass
class Counterparts:
    """The images of a folder (LR or upsampled) by the paths of their HR images.

    `name_scales` has an image of the scale that the names state, if they do.
    """

    root: Address
    by_hr: dict[str, Photo]
    name_scales: dict[int, Photo] = field(default_factory=dict)


@dataclass
class LrFolder:
    """An LR folder: its images, the upsampled ones in the same folder, and the HR images that should have both."""

    hr: dict[str, Photo]
    lr: Counterparts
    up: Counterparts | None = None
    naming: Naming = NAMINGS[0]


def match_lr(
    hr: Images, lr: Images, is_shared: bool, selection: Selection, unpaired: Unpaired, notes: list[str]
) -> LrFolder:
    """Return the images of an LR folder that belong to HR images; add others to `unpaired` or `notes`.

    UsageError when the names do not determine the pairs.
    """
    namings = NAMINGS if selection.pattern is None else (selection.pattern,)
    matching = match_images(hr, lr, namings, selection.is_used, is_shared)
    refuse_duplicates(matching.hr.duplicates, "HR", hr.root)
    refuse_several_scales(matching.lr.scales, lr.root, "--lr")
    refuse_duplicates(matching.lr.duplicates, "LR", lr.root)
    unpaired.add(matching.hr_alone, "HR image", f"LR image in {lr.root}{matching.case_hint}")
    if not selection.is_listed:
        unpaired.add(matching.lr_alone, "LR image", f"HR image in {hr.root}")
    if selection.pattern is not None:
        _note(notes, lr.root, matching.unrecognised, "image", " not matching --pattern")
    elif not selection.is_listed:
        unpaired.add(matching.unrecognised, "image", f"a name of the form {matching.naming.lr} in {lr.root}")
    _note(notes, lr.root, tuple(matching.variants.by_name.values()), "further LR variant")
    folder = LrFolder(
        {photo.path: photo for photo in matching.hr.by_name.values()},
        Counterparts(lr.root, _by_hr(matching, matching.lr), matching.lr.scales),
        naming=matching.naming,
    )
    if matching.up.by_name:
        refuse_duplicates(matching.up.duplicates, "upsampled", lr.root)
        folder.up = Counterparts(lr.root, _by_hr(matching, matching.up), matching.up.scales)
        if not selection.is_listed:
            unpaired.add(matching.without_hr(matching.up), "upsampled image", f"HR image in {hr.root}")
    return folder


def match_up(hr: Images, up: Images, hr_template: str, selection: Selection, unpaired: Unpaired) -> Counterparts:
    """Return the images of a folder of upsampled images that belong to HR images; add others to `unpaired`."""
    pattern = selection.pattern
    templates = _UP_TEMPLATES if pattern is None else tuple(filter(None, (pattern.up, pattern.hr, pattern.lr)))
    namings = [Naming(hr_template, template) for template in dict.fromkeys(templates)]
    matching = match_images(hr, up, namings, selection.is_used, is_shared=False)
    refuse_several_scales(matching.lr.scales, up.root, "--up")
    refuse_duplicates(matching.lr.duplicates, "upsampled", up.root)
    if not selection.is_listed:
        unpaired.add([*matching.lr_alone, *matching.unrecognised], "upsampled image", f"HR image in {hr.root}")
    return Counterparts(up.root, _by_hr(matching, matching.lr), matching.lr.scales)


def _by_hr(matching: Matching, index: Index) -> dict[str, Photo]:
    hr = matching.hr.by_name
    return {hr[name].path: photo for name, photo in index.by_name.items() if name in hr}


def _note(notes: list[str], root: Address, photos: Sequence[Photo], what: str, which: str = "") -> None:
    if photos:
        notes.append(f"left out {plural(len(photos), what)}{which} in {root}: {examples(photos)}")
