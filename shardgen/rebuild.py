"""An LR image made again, from the stored HR and the record of what was drawn for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardgen.degrade import libraries, make_lrs
from shardgen.errors import RunError
from shardgen.format import lr_name
from shardgen.pixels import Pixels
from shardgen.shard_reader import find_sample, open_manifest, scale_folders


@dataclass(frozen=True)
class Rebuilt:
    """An LR image (H x W x 3 uint8) as it is stored, and as it comes out now."""

    folder: Path
    scale: int
    name: str
    stored: Pixels
    made: Pixels

    @property
    def num_different(self) -> int:
        """Pixels that are not equal."""
        return int((self.stored != self.made).any(axis=2).sum())


def rebuild(folder: Path, key: str) -> Iterator[Rebuilt]:
    """All LR images of a sample, at each scale in `folder`. RunError when its record cannot be followed."""
    for path in scale_folders(folder):
        sample = find_sample(path, key)
        described, manifest = sample.describe(), open_manifest(path)
        try:
            made = make_lrs(sample.image("hr"), manifest.scale, described["method"], described.get("degradation"))
        except (RunError, OSError):
            raise
        except Exception as error:  # a record that was tampered with can say anything
            raise RunError(
                f"{sample.tar}: {key}.json tells of a degradation that this program does not know ({error!r})"
            ) from error
        for variant, pixels in enumerate(made):
            name = lr_name(variant)
            yield Rebuilt(path, manifest.scale, name, sample.image(name), pixels)


def changed_libraries(folder: Path, key: str) -> dict[str, tuple[str, str]]:
    """By library: its version when the sample was made, and now; only of those that differ."""
    recorded: Any = find_sample(scale_folders(folder)[0], key).describe().get("libraries", {})
    return {
        name: (str(recorded[name]), now)
        for name, now in libraries().items()
        if name in recorded and recorded[name] != now
    }
