"""What a run sees of the validation split: figures beside bicubic's, and a picture of some of it."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from trainer.evaluate import Judged, Network, judge, shard_pairs
from trainer.metrics import Quality, mean_quality
from trainer.picture import Row, grid
from trainer.pixels import Pixels
from trainer.shards import ShardFolder
from trainer.stopping import StopRequest

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


class Validation:
    """The same images each time: up to `limit`, spread evenly over the split."""

    def __init__(self, folder: ShardFolder, upsampled: bool, limit: int) -> None:
        self._folder = folder
        self._upsampled = upsampled
        self._limit = limit
        self._bicubic: dict[str, Quality] = {}
        self.num_images = min(limit, folder.num_samples("val"))

    def run(self, network: Network, stop: StopRequest) -> ValidationResult | None:
        """None when a stop was asked for on the way."""
        networks: list[Quality] = []
        bicubics: list[Quality] = []
        rows = []
        shown = {self.num_images * row // _PREVIEW_ROWS for row in range(_PREVIEW_ROWS)}
        pairs = shard_pairs(self._folder, "val", self._upsampled, self._limit)
        for number, judged in enumerate(judge(network, pairs, self._bicubic)):
            networks.append(judged.network)
            bicubics.append(judged.bicubic)
            if number in shown:
                rows.append(_preview_row(judged))
            if stop:
                return None
        preview = grid(rows, ("bicubic", "network", "HR"))
        return ValidationResult(mean_quality(networks), mean_quality(bicubics), preview)


def _preview_row(judged: Judged) -> Row:
    images = [judged.pair.bicubic(), judged.output, judged.pair.hr]
    caption = f"bicubic {judged.bicubic.psnr_y:.2f} dB   network {judged.network.psnr_y:.2f} dB"
    return Row([_centre(image) for image in images], caption, judged.pair.name)


def _centre(image: Pixels) -> Pixels:
    size = min(_PREVIEW_PX, *image.shape[:2])
    top, left = ((edge - size) // 2 for edge in image.shape[:2])
    return np.ascontiguousarray(image[top : top + size, left : left + size])
