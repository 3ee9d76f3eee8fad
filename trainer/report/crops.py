"""The crops that a comparison page shows: those in which the networks disagree most."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srshards.imaging.luma import luma_full_range
from srshards.imaging.pixels import Pixels
from srshards.imaging.window import strongest_window
from trainer.evaluation.names import BICUBIC, HR
from trainer.evaluation.results import ImageResult

CROP_PX = 256


@dataclass(frozen=True)
class Crop:
    """The same crop of all versions of an image: bicubic, the networks' outputs and HR.

    `disagreement` is the mean difference, in grey levels, between the highest and the lowest luma of the compared
    versions. `position` is its top left corner, (x, y) in px, or None for a whole image. `result` has the values
    of the whole image.
    """

    result: ImageResult
    versions: Mapping[str, Pixels]
    position: tuple[int, int] | None
    disagreement: float


class Crops:
    """Keeps the crops of the `limit` images of a set whose compared versions disagree most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[tuple[float, int, Crop]] = []  # a heap, with the least disagreement first
        self.num_images = 0

    def add(self, result: ImageResult, versions: Mapping[str, Pixels]) -> None:
        """Consider an image: H x W x 3 uint8 RGB by version, all of the same size."""
        self.num_images += 1
        crop = _crop(result, versions)
        entry = (crop.disagreement, -self.num_images, crop)  # of equal ones, the first images
        (heapq.heappush if len(self._kept) < self._limit else heapq.heappushpop)(self._kept, entry)

    def by_disagreement(self) -> list[Crop]:
        return [crop for *_, crop in sorted(self._kept, key=lambda entry: entry[:2], reverse=True)]


def compared_versions(versions: Sequence[str]) -> list[str]:
    """Return the versions whose disagreement counts: the networks, or bicubic and the network if there is only one."""
    networks = [version for version in versions if version not in (BICUBIC, HR)]
    return networks if len(networks) > 1 else [BICUBIC, *networks]


def _crop(result: ImageResult, versions: Mapping[str, Pixels]) -> Crop:
    """Return the window with the largest disagreement. Its pixels are copied, so that the images can be freed."""
    lumas = [luma_full_range(versions[version]) for version in compared_versions(list(versions))]
    ranges = np.maximum.reduce(lumas) - np.minimum.reduce(lumas)
    height, width = (min(CROP_PX, edge) for edge in ranges.shape)
    top, left = strongest_window(ranges, height, width)
    inside = (slice(top, top + height), slice(left, left + width))
    crops = {version: image[inside].copy() for version, image in versions.items()}
    is_whole = (height, width) == ranges.shape
    return Crop(result, crops, None if is_whole else (left, top), float(ranges[inside].mean()))
