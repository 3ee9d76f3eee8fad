"""What a run is made from: the listed photos of each folder, or the given pairs, and the settings that follow."""

from dataclasses import dataclass, field
from pathlib import Path

from shardgen.generate.headers import Headers
from shardgen.pairs.recognise import refuse_pairs
from shardgen.planning.config import Config
from shardgen.planning.exclusion import Exclusion, leave_out
from shardgen.planning.sources import Listing, Photo, Source, list_images, list_photos
from srshards.errors import UsageError
from srshards.format import Address
from srshards.storage.store import storage_of


@dataclass(frozen=True)
class Inputs:
    """The settings of a run, with its photos (or pairs).

    `listing` is that of `config.input` without the excluded photos, `val` that of `config.val`. `notes` are sentences
    about choices that were made, for the user.
    """

    config: Config
    listing: Listing[Source]
    val: Listing[Source] | None = None
    excluded: Exclusion | None = None
    notes: tuple[str, ...] = ()
    headers: Headers = field(default_factory=Headers)


def list_inputs(config: Config, exclude: Path | None = None, as_photos: bool = False) -> Inputs:
    """List the photos. Those in the file `exclude` are left out of `config.input`; `config.val` is used whole.

    UsageError when a folder is missing or has no photos, when one of the two folders contains the other, and when the
    names of the photos are those of HR/LR pairs, unless `as_photos`.
    """
    refuse_overlap(config.input, config.val, "--input")
    listing, excluded = list_photos(config.input), None
    if exclude is not None:
        listing, excluded = leave_out(listing, exclude)
    if not as_photos:
        refuse_pairs(listing.photos, config.input, config.output)
    return Inputs(config, listing, _list_validation(config, as_photos), excluded)


def _list_validation(config: Config, as_photos: bool) -> Listing[Photo] | None:
    if config.val is None:
        return None
    listing = list_images(
        config.val,
        "photos",
        "pass the folder of validation photos as --val (make: VAL=...)",
        "pass a folder of photos as --val, e.g. ./Set5",
    )
    if not as_photos:
        refuse_pairs(listing.photos, config.val, config.output)
    return listing


def refuse_overlap(folder: Address, val: "Address | None", option: str) -> None:
    """Raise UsageError if validation images would be training images too."""
    if val is None or storage_of(folder).is_local != storage_of(val).is_local:
        return
    inner, outer = (storage_of(root).resolved(root) for root in (val, folder))
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UsageError(
            f"--val {val} and {option} {folder} overlap, so a network would be validated on images that it was trained "
            "on; pass folders that do not contain each other"
        )
