"""Number of tiles per photo: an estimate for all photos, exact counts where a shard might overflow.

The number depends on a photo's size in px, which is stored in its header. Reading a million headers takes longer than
the rest of planning, and is unnecessary where shards are far below `MAX_SAMPLES_PER_SHARD`. So the means per photo and
per byte are estimated from the first photos of the plan's order. (The mean per byte catches photos that are much larger
than those.) Exact counts are read only for shards estimated above a quarter of the limit. A photo that nevertheless
does not fit is detected when the shard is built, and recorded as failed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from shardgen.planning.boxes import num_tiles
from shardgen.planning.config import Config
from shardgen.planning.plan import order_photos
from shardgen.planning.sources import Source, printable
from srshards.errors import UsageError
from srshards.format import MAX_SAMPLES_PER_SHARD

_NUM_INSPECTED = 256
_SAFE_FRACTION = 1 / 4  # of the limit: lower estimates may be too low by a factor of four

# Yields the upright (height, width) in px of each photo (or HR image); None if it cannot be read.
SizesOf = Callable[[Sequence[Source]], Iterable[tuple[int, int] | None]]


@dataclass(frozen=True)
class Tiles:
    """Mean numbers of tiles over the inspected photos, and what is needed to count others."""

    config: Config
    sizes_of: SizesOf
    per_photo: float
    per_byte: float

    def counts(self, photos: Sequence[Source]) -> list[int] | None:
        """Return the number of tiles of each photo of a shard; None where they certainly fit into one.

        UsageError when a single photo has too many.
        """
        num_bytes = sum(photo.size for photo in photos)
        expected = max(len(photos) * self.per_photo, num_bytes * self.per_byte)
        return _count(photos, self.config, self.sizes_of) if expected > MAX_SAMPLES_PER_SHARD * _SAFE_FRACTION else None


def inspected_photos(photos: Sequence[Source], config: Config) -> tuple[Source, ...]:
    """Return the first photos of the plan's order, which are the same on every run."""
    return order_photos(photos, config).first(_NUM_INSPECTED).photos()


def estimate_tiles(photos: Sequence[Source], config: Config, sizes_of: SizesOf) -> Tiles:
    """Estimate from the inspected photos."""
    inspected = inspected_photos(photos, config)
    counted = sum(_count(inspected, config, sizes_of))
    return Tiles(
        config, sizes_of, max(counted, 1) / len(inspected), counted / max(sum(photo.size for photo in inspected), 1)
    )


def tiles_of(height: int, width: int, config: Config) -> int:
    """Return the number of tiles of an upright photo of that size in px."""
    return num_tiles(height, width, config.size, config.tile_step or config.size)


def _count(photos: Sequence[Source], config: Config, sizes_of: SizesOf) -> list[int]:
    counts = []
    for photo, size in zip(photos, sizes_of(photos), strict=True):
        counts.append(tiles_of(*size, config) if size else 0)  # unreadable: recorded as failed when the shard is built
        if counts[-1] > MAX_SAMPLES_PER_SHARD:
            raise UsageError(
                f"{printable(photo.path)} has {counts[-1]:,} tiles, but a shard can hold at most "
                f"{MAX_SAMPLES_PER_SHARD:,} samples; pass a larger --tile-step or --size, or exclude the photo with "
                "--exclude"
            )
    return counts
