"""Refuse folders of pairs that are passed as photos."""

import shlex
from collections.abc import Sequence

from shardgen.planning.sources import Photo, shown
from srshards.errors import UsageError
from srshards.format import Address
from srshards.pair_names import pairs_among


def refuse_pairs(photos: Sequence[Photo], root: Address, output: Address) -> None:
    """Raise UsageError, with the command that packs them, if the photos of a folder are pairs by their names."""
    found = pairs_among((photo.path for photo in photos), root)
    if found is None:
        return
    hr = "PHOTOS" if found.hr is None else shlex.quote(str(found.hr))
    lr, out = shlex.quote(str(found.lr)), shlex.quote(str(output))
    raise UsageError(
        f"{root} has HR/LR pairs, not only photos: {found.num_images:,} of {len(photos):,} images are LR or upsampled "
        f"images by their names, e.g. {shown(found.example)}; to pack the pairs, run `python -m shardgen pack --hr "
        f"{hr} --lr {lr} -o {out}`, or pass --as-photos to use all images as photos"
    )
