"""Validation during training: metrics of the network and of bicubic, and a preview image."""

from dataclasses import dataclass, field
from itertools import chain, count, islice
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from srshards.imaging.contact_sheet import Row, grid
from srshards.imaging.pixels import Pixels
from srshards.shards.folder import Shards
from trainer.distributed.group import SINGLE_PROCESS_GROUP, RankGroup
from trainer.evaluation.evaluate import evaluate_batches, to_qualities
from trainer.evaluation.metrics import NUM_SUMS, Quality, mean_of_sums, quality_sums
from trainer.evaluation.pairs import Pair, shard_pairs
from trainer.evaluation.transfer import download
from trainer.models import Network
from trainer.training.stopping import StopRequest

AnyImage = TypeVar("AnyImage", Pixels, Tensor)

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


class _FixedCells(NamedTuple):
    """What stays the same in a row of the preview: the crops of bicubic and HR, and the name of the image."""

    bicubic: Pixels
    hr: Pixels
    name: str


@dataclass(frozen=True)
class _OnDevice:
    """Results of this rank's images that may still be being computed: metrics by batch, crops of the output by image.

    Images are numbered 0, 1, ... on each rank.
    """

    networks: list[Tensor] = field(default_factory=list)
    bicubics: list[Tensor] = field(default_factory=list)
    crops: dict[int, Tensor] = field(default_factory=dict)


class Validation:
    """Evaluates the same images each time: up to `limit`, spread evenly over the split and divided among the ranks."""

    def __init__(self, folder: Shards, upsampled: bool, limit: int, group: RankGroup = SINGLE_PROCESS_GROUP) -> None:
        self._folder = folder
        self._upsampled = upsampled
        self._limit = limit
        self._group = group
        self._bicubics: list[Quality] | None = None  # of this rank's images, after the first validation
        self._fixed_cells: dict[int, _FixedCells] = {}  # by image of this rank
        self.num_images = min(limit, len(folder.val))
        self._previewed = {self.num_images * row // _PREVIEW_ROWS for row in range(_PREVIEW_ROWS)}

    def run(self, network: Network, stop: StopRequest) -> ValidationResult | None:
        """Return the same result on every rank, or None if any of them was asked to stop meanwhile.

        The host waits for the device once, after the last image. RunError for a damaged image, or if the network's
        output is not finite.
        """
        group = self._group
        share = group.run_on_all(lambda: self._evaluate(network, stop))
        if group.any_of(share is None) or share is None:
            return None
        sums = group.sum([*quality_sums(share.networks), *quality_sums(share.bicubics)])
        rows = sorted(chain(*group.all_gather(share.rows)), key=lambda numbered: numbered[0])
        preview = grid([row for _, row in rows], ("bicubic", "network", "HR"))
        return ValidationResult(mean_of_sums(sums[:NUM_SUMS]), mean_of_sums(sums[NUM_SUMS:]), preview)

    def _evaluate(self, network: Network, stop: StopRequest) -> _Share | None:
        """Evaluate this rank's images; None if it was asked to stop."""
        results = _OnDevice()
        pairs = shard_pairs(
            self._folder, "val", self._upsampled, self._limit, self._group.rank_info.rank, self._group.world_size
        )
        images = count()
        for batch in evaluate_batches(network, pairs, with_bicubic=self._bicubics is None):
            results.networks.append(batch.network)
            if batch.bicubic is not None:
                results.bicubics.append(batch.bicubic)
            for pair, output, image in zip(batch.pairs, batch.outputs, images, strict=False):
                if self._number(image) in self._previewed:
                    results.crops[image] = _centre(output.permute(1, 2, 0)).clone()
                    if image not in self._fixed_cells:
                        self._fixed_cells[image] = _fixed_cells(pair)
            if stop:
                return None
        return self._read(results)

    def _read(self, results: _OnDevice) -> _Share:
        """Wait for the device and return the results."""
        tensors = iter(download([*results.networks, *results.bicubics, *results.crops.values()]))
        networks = [one for tensor in islice(tensors, len(results.networks)) for one in to_qualities(tensor)]
        bicubics = [one for tensor in islice(tensors, len(results.bicubics)) for one in to_qualities(tensor)]
        if self._bicubics is None:
            self._bicubics = bicubics
        rows = []
        for image, crop in zip(results.crops, tensors, strict=True):
            fixed = self._fixed_cells[image]
            caption = f"bicubic {self._bicubics[image].psnr_y:.2f} dB   network {networks[image].psnr_y:.2f} dB"
            rows.append((self._number(image), Row([fixed.bicubic, crop.numpy(), fixed.hr], caption, fixed.name)))
        return _Share(networks, self._bicubics, rows)

    def _number(self, image: int) -> int:
        """Return the number, among those of all ranks, of this rank's image."""
        return self._group.rank_info.rank + image * self._group.world_size


def _fixed_cells(pair: Pair) -> _FixedCells:
    bicubic, hr = (np.ascontiguousarray(_centre(image)) for image in (pair.bicubic(), pair.hr))
    return _FixedCells(bicubic, hr, pair.name)


def _centre(image: AnyImage) -> AnyImage:
    """Return a view of the middle of an H x W x 3 image."""
    size = min(_PREVIEW_PX, *image.shape[:2])
    top, left = ((edge - size) // 2 for edge in image.shape[:2])
    return image[top : top + size, left : left + size]
