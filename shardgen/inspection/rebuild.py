"""An LR image made again, from the stored HR and the record of what was drawn for it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shardgen.degradation.degrade import libraries, make_lrs
from srshards.errors import RunError
from srshards.format import Address
from srshards.imaging.pixels import Pixels
from srshards.process.shortages import shortage
from srshards.shards.stored_samples import find_sample, open_manifest, scale_folders


@dataclass(frozen=True)
class Rebuilt:
    """An LR image (H x W x 3 uint8) as it is stored, and as it comes out now."""

    folder: Address
    scale: int
    name: str
    stored: Pixels
    made: Pixels
    recorded_libraries: dict[str, str] | None  # None where the record names none

    @property
    def num_different(self) -> int:
        """Pixels that are not equal: all of them when not even the sizes are."""
        if self.stored.shape != self.made.shape:
            return int(np.prod(self.stored.shape[:2]))
        return int((self.stored != self.made).any(axis=2).sum())

    @property
    def explanation(self) -> str:
        """What is known about the reason of a difference."""
        if self.recorded_libraries is None:
            return "the record names no versions of libraries: another one may have made it, or the shard has changed"
        now = libraries()
        changed = [
            f"{name} {then}, here {now.get(name, 'none')}"
            for name, then in self.recorded_libraries.items()
            if now.get(name) != then
        ]
        if changed:
            return f"made with {', '.join(changed)}"
        return "the libraries are the same, so the shard has changed, or another kind of processor made it"


def rebuild(folder: Address, key: str) -> Iterator[Rebuilt]:
    """All LR images of a sample, at each scale in `folder`. RunError when its record cannot be followed."""
    for path in scale_folders(folder):
        sample = find_sample(path, key)
        described, manifest = sample.describe(), open_manifest(path)
        stored = [name for name in sample.members if name.startswith("lr")]
        hr = sample.image("hr")
        try:
            made = make_lrs(hr, manifest.scale, described["method"], described.get("degradation"))
        except Exception as error:  # a record that was tampered with can say anything
            if shortage(error):
                raise
            raise RunError(
                f"{sample.tar}: {key}.json tells of a degradation that this program does not know ({error!r})"
            ) from error
        if len(made) != len(stored):
            raise RunError(f"{sample.tar}: {key}.json tells of {len(made)} LR images, but there are {len(stored)}")
        for name, pixels in zip(stored, made, strict=True):
            yield Rebuilt(path, manifest.scale, name, sample.image(name), pixels, described.get("libraries"))
