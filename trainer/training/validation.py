"""What a run sees of the validation split: figures beside bicubic's, and a picture of some of it."""

from dataclasses import dataclass
from itertools import chain, count
from typing import NamedTuple

import numpy as np
from PIL import Image

from srshards.imaging.pixels import Pixels
from srshards.shards.folder import ShardFolder
from trainer.contact_sheet import Row, grid
from trainer.distributed.group import ALONE, World
from trainer.evaluation.evaluate import Judged, Network, judge, shard_pairs
from trainer.evaluation.metrics import NUM_SUMS, Quality, mean_of_sums, quality_sums
from trainer.training.stopping import StopRequest

_PREVIEW_ROWS = 3
_PREVIEW_PX = 256


@dataclass(frozen=True)
class ValidationResult:
    """Means over the images, and the preview: bicubic | network | HR."""

    network: Quality
    bicubic: Quality
    preview: Image.Image

    @property
    def gain_db(self) -> float:
        """PSNR of luma above bicubic's."""
        return self.network.psnr_y - self.bicubic.psnr_y


class _Share(NamedTuple):
    """What one rank found: figures of its images, and those rows of the preview that it has, with their numbers."""

    networks: list[Quality]
    bicubics: list[Quality]
    rows: list[tuple[int, Row]]


class Validation:
    """The same images each time: up to `limit`, spread evenly over the split, and dealt out to the world's ranks."""

    def __init__(self, folder: ShardFolder, upsampled: bool, limit: int, world: World = ALONE) -> None:
        self._folder = folder
        self._upsampled = upsampled
        self._limit = limit
        self._world = world
        self._bicubic: dict[str, Quality] = {}
        self.num_images = min(limit, folder.num_samples("val"))

    def run(self, network: Network, stop: StopRequest) -> ValidationResult | None:
        """The same on every rank. None when a stop was asked for on the way, on any of them."""
        world = self._world
        share = world.together(lambda: self._judge(network, stop))
        if world.any_of(share is None) or share is None:
            return None
        sums = world.sum([*quality_sums(share.networks), *quality_sums(share.bicubics)])
        rows = sorted(chain(*world.gather(share.rows)), key=lambda numbered: numbered[0])
        preview = grid([row for _, row in rows], ("bicubic", "network", "HR"))
        return ValidationResult(mean_of_sums(sums[:NUM_SUMS]), mean_of_sums(sums[NUM_SUMS:]), preview)

    def _judge(self, network: Network, stop: StopRequest) -> _Share | None:
        """This rank's images, unless a stop was asked for."""
        place, share = self._world.place, _Share([], [], [])
        shown = {self.num_images * row // _PREVIEW_ROWS for row in range(_PREVIEW_ROWS)}
        pairs = shard_pairs(self._folder, "val", self._upsampled, self._limit, place.rank, place.ranks)
        for number, judged in zip(count(place.rank, place.ranks), judge(network, pairs, self._bicubic), strict=False):
            share.networks.append(judged.network)
            share.bicubics.append(judged.bicubic)
            if number in shown:
                share.rows.append((number, _preview_row(judged)))
            if stop:
                return None
        return share


def _preview_row(judged: Judged) -> Row:
    images = [judged.pair.bicubic(), judged.output, judged.pair.hr]
    caption = f"bicubic {judged.bicubic.psnr_y:.2f} dB   network {judged.network.psnr_y:.2f} dB"
    return Row([_centre(image) for image in images], caption, judged.pair.name)


def _centre(image: Pixels) -> Pixels:
    size = min(_PREVIEW_PX, *image.shape[:2])
    top, left = ((edge - size) // 2 for edge in image.shape[:2])
    return np.ascontiguousarray(image[top : top + size, left : left + size])
