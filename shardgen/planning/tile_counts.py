"""Number of tiles per photo: an estimate for all photos, exact counts where a shard might overflow.

The number depends on a photo's size in px, which is stored in its header. Reading a million headers takes longer than
the rest of planning, and is unnecessary where shards are far below `MAX_SAMPLES_PER_SHARD`. So the means per photo and
per byte are estimated from the first photos of the plan's order. (The mean per byte catches photos that are much larger
than those.) Exact counts are read only for shards estimated above a quarter of the limit. A photo that nevertheless
does not fit is detected when the shard is built, and recorded as failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shardgen.planning.boxes import num_tiles
from shardgen.planning.config import Config
from shardgen.planning.photo_reader import photos_with_bytes
from shardgen.planning.plan import order_photos
from shardgen.planning.sources import Photo, printable
from srshards.errors import PhotoError, UsageError
from srshards.format import MAX_SAMPLES_PER_SHARD
from srshards.imaging.photo import upright_size

_NUM_INSPECTED = 256
_SAFE_FRACTION = 1 / 4  # of the limit: lower estimates may be too low by a factor of four


@dataclass(frozen=True)
class Tiles:
    """Mean numbers of tiles over the inspected photos."""

    config: Config
    per_photo: float
    per_byte: float

    def counts(self, photos: Sequence[Photo]) -> list[int] | None:
        """Return the number of tiles of each photo of a shard; None where they certainly fit into one.

        UsageError when a single photo has too many.
        """
        num_bytes = sum(photo.size for photo in photos)
        expected = max(len(photos) * self.per_photo, num_bytes * self.per_byte)
        return _count(photos, self.config) if expected > MAX_SAMPLES_PER_SHARD * _SAFE_FRACTION else None


def estimate_tiles(photos: Sequence[Photo], config: Config) -> Tiles:
    """Estimate from the first photos of the plan's order, which are the same on every run."""
    inspected = order_photos(photos, config).first(_NUM_INSPECTED).photos()
    counted = sum(_count(inspected, config))
    return Tiles(config, max(counted, 1) / len(inspected), counted / max(sum(photo.size for photo in inspected), 1))


def tiles_of(height: int, width: int, config: Config) -> int:
    """Return the number of tiles of an upright photo of that size in px."""
    return num_tiles(height, width, config.size, config.tile_step or config.size)


def _count(photos: Sequence[Photo], config: Config) -> list[int]:
    counts = []
    for photo, read in photos_with_bytes(photos, config.input):
        try:
            counts.append(tiles_of(*upright_size(read()), config))
        except PhotoError:  # recorded as failed when the shard is built
            counts.append(0)
        if counts[-1] > MAX_SAMPLES_PER_SHARD:
            raise UsageError(
                f"{printable(photo.path)} has {counts[-1]:,} tiles, but a shard can hold at most "
                f"{MAX_SAMPLES_PER_SHARD:,} samples; pass a larger --tile-step or --size, or exclude the photo with "
                "--exclude"
            )
    return counts
