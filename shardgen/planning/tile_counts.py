"""How many tiles photos give: an estimate for all of them, and the exact numbers where a shard might overflow.

The number depends on a photo's size in px, which only its header says. To read a million headers takes longer than all
of planning, and is in vain where shards are far below `MAX_SAMPLES_PER_SHARD`. So the first photos of the plan's order
tell of all, by their number and by their bytes, which show what is much larger than those; and only the photos of a
shard that would hold more than a quarter of the limit by either are counted. What even so does not fit is found when
the shard is made, and is that photo's failure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shardgen.planning.boxes import num_tiles
from shardgen.planning.config import Config
from shardgen.planning.photo_reader import photos_with_bytes
from shardgen.planning.plan import place_photos
from shardgen.planning.sources import Photo, printable
from srshards.errors import PhotoError, UsageError
from srshards.format import MAX_SAMPLES_PER_SHARD
from srshards.imaging.photo import upright_size

_LOOKED_AT = 256
_CERTAIN_SHARE = 1 / 4  # of the limit: an estimate below it may be wrong by that much


@dataclass(frozen=True)
class Tiles:
    """The means over the photos that were looked at."""

    config: Config
    per_photo: float
    per_byte: float

    def counts(self, photos: Sequence[Photo]) -> list[int] | None:
        """The number of tiles of each photo of a shard; None where they certainly fit into one.

        UsageError when one photo alone has more.
        """
        num_bytes = sum(photo.size for photo in photos)
        expected = max(len(photos) * self.per_photo, num_bytes * self.per_byte)
        return _count(photos, self.config) if expected > MAX_SAMPLES_PER_SHARD * _CERTAIN_SHARE else None


def estimate_tiles(photos: Sequence[Photo], config: Config) -> Tiles:
    """From the first photos of the plan's order: the same on every run."""
    looked_at = place_photos(photos, config).first(_LOOKED_AT).photos()
    counted = sum(_count(looked_at, config))
    return Tiles(config, max(counted, 1) / len(looked_at), counted / max(sum(photo.size for photo in looked_at), 1))


def tiles_of(height: int, width: int, config: Config) -> int:
    """How many samples an upright photo of that size (px) gives with `--fit tile`."""
    return num_tiles(height, width, config.size, config.tile_step or config.size)


def _count(photos: Sequence[Photo], config: Config) -> list[int]:
    counts = []
    for photo, read in photos_with_bytes(photos, config.input):
        try:
            counts.append(tiles_of(*upright_size(read()), config))
        except PhotoError:  # it will be a failure, and give none
            counts.append(0)
        if counts[-1] > MAX_SAMPLES_PER_SHARD:
            raise UsageError(
                f"{printable(photo.path)} gives {counts[-1]:,} tiles, and a shard holds {MAX_SAMPLES_PER_SHARD:,} "
                "samples at most: choose a larger --tile-step or --size, or leave the photo out with --exclude"
            )
    return counts
