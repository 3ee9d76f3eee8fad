"""The images that a network is evaluated on, from shards or photos."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from srshards.imaging.bicubic import bicubic_down, bicubic_up, crop_to_multiple
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import cubic_up
from srshards.imaging.upsampling import upsample
from srshards.shards.folder import Shards
from srshards.shards.mapped import MappedShard, reading
from srshards.shards.subset import evenly_spaced
from trainer.inference.photo_files import list_photos, read_photo


@dataclass(frozen=True)
class Pair:
    """One evaluation image: H x W x 3 uint8 `hr`, its `lr`, and the network's `input`, which is LR or upsampled LR."""

    name: str
    scale: int
    hr: Pixels
    lr: Pixels
    input: Pixels

    @property
    def num_bytes(self) -> int:
        """Size in memory, as if `hr` were complete: it is a view of a photo that is larger by less than `scale` px."""
        return self.hr.nbytes + self.lr.nbytes + (0 if self.input is self.lr else self.input.nbytes)

    def bicubic(self) -> Pixels:
        """Return the baseline: LR upscaled with the bicubic kernel that published tables use."""
        return bicubic_up(self.lr, self.scale)


def shard_pairs(
    folder: Shards, split: str, upsampled: bool, limit: int | None = None, rank: int = 0, ranks: int = 1
) -> Iterator[Pair]:
    """Yield the images of a split, or `limit` of them spread evenly. RunError for a damaged one.

    Rank `rank` of `ranks` gets images `rank`, `rank + ranks`, ... of these.
    """
    samples = folder.split(split)
    for record, positions in evenly_spaced(samples.records, limit or len(samples), rank, ranks):
        with reading(folder.origin):
            shard = folder.open(record)
            for position in positions:
                yield _shard_pair(folder, shard, position, upsampled)
            del shard  # so that a cache may evict it before the next one is opened


def _shard_pair(folder: Shards, shard: MappedShard, position: int, upsampled: bool) -> Pair:
    """Return one pair, with copied images: views would pin the shard in the cache."""
    size, scale = folder.hr_size, folder.scale
    hr = shard.image(position, "hr", folder.codec, size).copy()
    lr = shard.image(position, "lr", folder.codec, size // scale).copy()
    network_input = lr
    if upsampled and folder.up_method:
        network_input = upsample(lr, scale, folder.up_method)
    elif upsampled:
        network_input = shard.image(position, "up", folder.codec, size).copy()
    return Pair(shard.description(position), scale, hr, lr, network_input)


def photo_pairs(folder: Path, scale: int, upsampled: bool) -> Iterator[Pair]:
    """Yield the pair of each HR photo in a folder. UsageError if there is none, and those of `photo_pair`."""
    root = folder if folder.is_dir() else folder.parent
    return (photo_pair(path, root, scale, upsampled) for path in list_photos([folder]))


def photo_pair(path: Path, root: Path, scale: int, upsampled: bool) -> Pair:
    """Return a pair as in published tables: HR is the photo cropped to a multiple of the scale, LR its MATLAB bicubic.

    With `upsampled`, the network's input is LR upscaled with OpenCV's cubic, the default for `up` in shards. The name
    is relative to `root`. UsageError for a photo that cannot be read.
    """
    hr = crop_to_multiple(read_photo(path).rgb, scale)
    lr = bicubic_down(hr, scale)
    return Pair(str(path.relative_to(root)), scale, hr, lr, cubic_up(lr, scale) if upsampled else lr)
