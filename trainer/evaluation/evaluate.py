"""How good a network is: PSNR and SSIM of what it makes, image by image, beside those of bicubic enlargement."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from srshards.errors import UsageError
from srshards.imaging.bicubic import bicubic_down, bicubic_up, crop_to_multiple
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import cubic_up
from srshards.shards.folder import Shards
from srshards.shards.mapped import MappedShard, reading
from srshards.shards.spread import spread_evenly
from trainer.evaluation.metrics import SSIM_WINDOW_PX, Quality, measure
from trainer.inference.image_function import ImageFunction
from trainer.inference.photo_files import list_photos, read_photo


@dataclass(frozen=True)
class Pair:
    """An image to evaluate on: H x W x 3 uint8 `hr` and its `lr`; the network's `input` is LR, or has HR's size."""

    name: str
    scale: int
    hr: Pixels
    lr: Pixels
    input: Pixels

    def bicubic(self) -> Pixels:
        """What a network has to beat: LR enlarged with the bicubic kernel of the published tables."""
        return bicubic_up(self.lr, self.scale)


class PairResult(NamedTuple):
    """The quality of one image. `output` is the network's, H x W x 3 uint8."""

    pair: Pair
    output: Pixels
    network: Quality
    bicubic: Quality


def evaluate_pairs(
    network: ImageFunction, pairs: Iterable[Pair], bicubic: dict[str, Quality] | None = None
) -> Iterator[PairResult]:
    """Each pair's result. A border of `scale` px is left out, as in the published tables.

    Bicubic's figures are kept in `bicubic`, by the pair's name, so that they are computed once.
    """
    known = {} if bicubic is None else bicubic
    for pair in pairs:
        output = network(pair.input)
        if pair.name not in known:
            known[pair.name] = measure(pair.bicubic(), pair.hr, pair.scale)
        yield PairResult(pair, output, measure(output, pair.hr, pair.scale), known[pair.name])


def restores(network_scale: int, scale: int, network: str, data: str) -> bool:
    """Whether the network sees images of HR size. UsageError when it is for another scale than the data."""
    if network_scale not in (1, scale):
        raise UsageError(f"{network} enlarges {network_scale}x, but {data} is {scale}x; take weights and data that fit")
    return network_scale == 1


def shard_pairs(
    folder: Shards, split: str, upsampled: bool, limit: int | None = None, rank: int = 0, ranks: int = 1
) -> Iterator[Pair]:
    """The images of a split; with a limit, so many, spread evenly over all of them. RunError for a damaged one.

    Of these, a rank's are number `rank`, `rank + ranks`, ...
    """
    samples = folder.split(split)
    for record, places in spread_evenly(samples.records, limit or len(samples), rank, ranks):
        with reading(folder.origin):
            shard = folder.open(record)
            for place in places:
                yield _shard_pair(folder, shard, place, upsampled)
            del shard  # a cache need not hold it beside the next one


def _shard_pair(folder: Shards, shard: MappedShard, place: int, upsampled: bool) -> Pair:
    """Its images are copies: a view would keep the shard in a cache for as long as anybody has the pair."""
    size, scale = folder.hr_size, folder.scale
    hr = shard.image(place, "hr", folder.codec, size).copy()
    lr = shard.image(place, "lr", folder.codec, size // scale).copy()
    network_input = shard.image(place, "up", folder.codec, size).copy() if upsampled else lr
    return Pair(shard.description(place), scale, hr, lr, network_input)


def photo_pairs(folder: Path, scale: int, upsampled: bool) -> Iterator[Pair]:
    """Pairs from HR photos, as the published tables make them: cropped to a multiple of the scale, LR by bicubic.

    With `upsampled`, the network sees LR enlarged with OpenCV's cubic, as `up` is made in shards by default.
    """
    root = folder if folder.is_dir() else folder.parent
    for path in list_photos([folder]):
        hr = crop_to_multiple(read_photo(path).rgb, scale)
        if min(hr.shape[:2]) < SSIM_WINDOW_PX + 2 * scale:
            raise UsageError(f"{path} is too small to be judged at {scale}x; remove it from {folder}")
        lr = bicubic_down(hr, scale)
        yield Pair(str(path.relative_to(root)), scale, hr, lr, cubic_up(lr, scale) if upsampled else lr)
