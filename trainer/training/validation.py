"""Validation during training: metrics of the network and of bicubic, and a preview image."""

from dataclasses import dataclass
from itertools import chain, count
from typing import NamedTuple

import numpy as np
from PIL import Image

from srshards.imaging.contact_sheet import Row, grid
from srshards.imaging.pixels import Pixels
from srshards.shards.folder import Shards
from trainer.distributed.group import SINGLE_PROCESS_GROUP, RankGroup
from trainer.evaluation.evaluate import PairResult, evaluate_pairs, shard_pairs
from trainer.evaluation.metrics import NUM_SUMS, Quality, mean_of_sums, quality_sums
from trainer.inference.image_function import ImageFunction
from trainer.training.stopping import StopRequest

_PREVIEW_ROWS = 3
_PREVIEW_PX = 256


@dataclass(frozen=True)
class ValidationResult:
    """Mean metrics over the images, and a preview: bicubic | network | HR."""

    network: Quality
    bicubic: Quality
    preview: Image.Image

    @property
    def gain_db(self) -> float:
        """PSNR-Y gain over bicubic, in dB."""
        return self.network.psnr_y - self.bicubic.psnr_y


class _Share(NamedTuple):
    """One rank's share of a validation: the metrics of its images, and its numbered rows of the preview."""

    networks: list[Quality]
    bicubics: list[Quality]
    rows: list[tuple[int, Row]]


class Validation:
    """Evaluates the same images each time: up to `limit`, spread evenly over the split and divided among the ranks."""

    def __init__(self, folder: Shards, upsampled: bool, limit: int, group: RankGroup = SINGLE_PROCESS_GROUP) -> None:
        self._folder = folder
        self._upsampled = upsampled
        self._limit = limit
        self._group = group
        self._bicubic: dict[str, Quality] = {}
        self.num_images = min(limit, len(folder.val))

    def run(self, network: ImageFunction, stop: StopRequest) -> ValidationResult | None:
        """Return the same result on every rank, or None if any of them was asked to stop meanwhile."""
        group = self._group
        share = group.run_on_all(lambda: self._evaluate(network, stop))
        if group.any_of(share is None) or share is None:
            return None
        sums = group.sum([*quality_sums(share.networks), *quality_sums(share.bicubics)])
        rows = sorted(chain(*group.all_gather(share.rows)), key=lambda numbered: numbered[0])
        preview = grid([row for _, row in rows], ("bicubic", "network", "HR"))
        return ValidationResult(mean_of_sums(sums[:NUM_SUMS]), mean_of_sums(sums[NUM_SUMS:]), preview)

    def _evaluate(self, network: ImageFunction, stop: StopRequest) -> _Share | None:
        """Evaluate this rank's images; None if it was asked to stop."""
        rank, world_size = self._group.rank_info.rank, self._group.world_size
        share = _Share([], [], [])
        previewed = {self.num_images * row // _PREVIEW_ROWS for row in range(_PREVIEW_ROWS)}
        pairs = shard_pairs(self._folder, "val", self._upsampled, self._limit, rank, world_size)
        results = evaluate_pairs(network, pairs, self._bicubic)
        for number, result in zip(count(rank, world_size), results, strict=False):
            share.networks.append(result.network)
            share.bicubics.append(result.bicubic)
            if number in previewed:
                share.rows.append((number, _preview_row(result)))
            if stop:
                return None
        return share


def _preview_row(result: PairResult) -> Row:
    images = [result.pair.bicubic(), result.output, result.pair.hr]
    caption = f"bicubic {result.bicubic.psnr_y:.2f} dB   network {result.network.psnr_y:.2f} dB"
    return Row([_centre(image) for image in images], caption, result.pair.name)


def _centre(image: Pixels) -> Pixels:
    size = min(_PREVIEW_PX, *image.shape[:2])
    top, left = ((edge - size) // 2 for edge in image.shape[:2])
    return np.ascontiguousarray(image[top : top + size, left : left + size])
