"""Recompute LR images from the stored HR and the recorded degradation."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shardgen.degradation.degrade import libraries, make_lrs
from shardgen.degradation.recipe import UnknownStepError
from shardgen.planning.sources import printable
from srshards.errors import RunError, UsageError
from srshards.format import Address
from srshards.imaging.pixels import Pixels
from srshards.process.shortages import shortage
from srshards.shards.stored_samples import find_sample, open_manifest, scale_folders


@dataclass(frozen=True)
class Rebuilt:
    """An LR image as stored and as recomputed, both H x W x 3 uint8."""

    folder: Address
    scale: int
    name: str
    stored: Pixels
    recomputed: Pixels
    recorded_libraries: dict[str, str] | None  # library versions; None where the record has none

    @property
    def num_different(self) -> int:
        """Number of pixels that differ; all of them if the sizes differ."""
        if self.stored.shape != self.recomputed.shape:
            return int(np.prod(self.stored.shape[:2]))
        return int((self.stored != self.recomputed).any(axis=2).sum())

    @property
    def explanation(self) -> str:
        """The likely cause of a difference."""
        if self.recorded_libraries is None:
            return "the record has no library versions, so others may have computed it, or the shard has changed"
        now = libraries()
        changed = [
            f"{name} {then}, here {now.get(name, 'none')}"
            for name, then in self.recorded_libraries.items()
            if now.get(name) != then
        ]
        if changed:
            return f"computed with {', '.join(changed)}"
        return "the library versions are equal, so the shard has changed, or another type of CPU computed it"


def rebuild(folder: Address, key: str) -> Iterator[Rebuilt]:
    """Yield all LR images of a sample at each scale in `folder`.

    UsageError when there is no such sample or its LR was given, RunError when its record cannot be applied.
    """
    for path in scale_folders(folder):
        sample = find_sample(path, key)
        described, manifest = sample.describe(), open_manifest(path)
        if manifest.raw["settings"].get("pairs"):
            raise UsageError(
                f"{path}: LR of {key} was given, not made: `pack` took it from {printable(described['lr_source'])}; "
                "there is nothing to recompute"
            )
        stored = [name for name in sample.members if name.startswith("lr")]
        hr = sample.image("hr")
        try:
            recomputed = make_lrs(hr, manifest.scale, described["method"], described.get("degradation"))
        except UnknownStepError as error:
            raise RunError(f"{sample.tar}: {key}.json records {error}") from error
        except Exception as error:  # a damaged record can raise anything
            if shortage(error):
                raise
            raise RunError(f"{sample.tar}: {key}.json records an unknown degradation ({error!r})") from error
        if len(recomputed) != len(stored):
            raise RunError(f"{sample.tar}: {key}.json records {len(recomputed)} LR images, found {len(stored)}")
        for name, pixels in zip(stored, recomputed, strict=True):
            yield Rebuilt(path, manifest.scale, name, sample.image(name), pixels, described.get("libraries"))
