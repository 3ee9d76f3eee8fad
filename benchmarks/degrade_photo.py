"""Derive HR and a randomly degraded LR from a photo, with the generator's functions."""

import random
from pathlib import Path

from benchmarks.peers.task import SCALE
from benchmarks.stream_stores import HR_PX
from shardgen.degradation.recipe import Recipe, degraded
from shardgen.degradation.rng import KeyedRng
from shardgen.planning.config import Config
from shardgen.shard.triplet import decode_reduced, hr_boxes, render_crop
from srshards.imaging.photo import read_bytes
from srshards.imaging.pixels import Pixels

_CONFIG = Config(Path(), Path(), scales=(SCALE,), size=HR_PX)


def open_hr(path: Path) -> Pixels:
    """Return the centre square at HR_PX; a JPEG is decoded at reduced size where that suffices.

    PhotoError when the file is not a photo.
    """
    photo = decode_reduced(read_bytes(path), _CONFIG)
    return render_crop(photo, hr_boxes(photo, _CONFIG)[0], _CONFIG).pixels


def online_pair(path: Path, edge: int, recipe: Recipe) -> tuple[Pixels, Pixels]:
    """Return a random crop of `edge` px of the HR image, and its LR by random parameters of the recipe."""
    hr = open_hr(path)
    top, left = (random.randrange(HR_PX - edge + 1) for _ in range(2))
    part = hr[top : top + edge, left : left + edge]
    drawn = recipe.draw(KeyedRng(random.getrandbits(53)), (edge, edge), (edge // SCALE, edge // SCALE))
    return part, degraded(part, drawn)
