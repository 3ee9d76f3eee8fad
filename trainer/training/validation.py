"""Validation during training: metrics of the network and of bicubic on several sets, and a preview image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from srshards.imaging.contact_sheet import Row, grid
from srshards.imaging.pixels import Pixels
from trainer.distributed.group import SINGLE_PROCESS_GROUP, RankGroup
from trainer.evaluation.best import BestBy
from trainer.evaluation.evaluate import evaluate_batches, to_rows
from trainer.evaluation.pairs import Pair
from trainer.evaluation.perceptual import PerceptualMetrics
from trainer.evaluation.scores import Scores, mean_scores, score_sums
from trainer.evaluation.set_names import MAIN_SET
from trainer.evaluation.sets import EvaluationSet
from trainer.evaluation.transfer import download
from trainer.metrics_table import METRICS, OWN, PERCEPTUAL
from trainer.models import Network
from trainer.training.stopping import StopRequest

AnyImage = TypeVar("AnyImage", Pixels, Tensor)

_PREVIEW_ROWS = 3
_PREVIEW_PX = 256
_PSNR_Y = OWN.index("psnr_y")


@dataclass(frozen=True)
class SetMeans:
    """Mean metrics of the network and of bicubic over the images of a set."""

    network: Scores
    bicubic: Scores

    @property
    def gain_db(self) -> float:
        """PSNR-Y gain over bicubic, in dB."""
        return self.network["psnr_y"] - self.bicubic["psnr_y"]


@dataclass(frozen=True)
class ValidationResult:
    """The result of each set by name, the main set first, and a preview of that set: bicubic | network | HR."""

    sets: dict[str, SetMeans]
    preview: Image.Image

    def value(self, by: BestBy) -> float:
        """Return the network's value by which weights are chosen."""
        return self.sets[by.set].network[by.metric]


def summary_lines(step: int, result: ValidationResult) -> list[str]:
    """Return a line for each set, with the step in the first one. The validation split is named if there are others."""
    names = list(result.sets)
    first = f"Step {step:,}" if names == [MAIN_SET] else f"Step {step:,}, {names[0]}"
    heads = [f"{name}: " for name in (first, *names[1:])]
    width = len(heads[0])
    return [f"{head:>{width}}{_summary(one)}" for head, one in zip(heads, result.sets.values(), strict=True)]


def _summary(result: SetMeans) -> str:
    network, bicubic = result.network, result.bicubic
    gain = f"PSNR-Y {METRICS['psnr_y'].formatted(network['psnr_y'])} ({result.gain_db:+.2f} vs. bicubic)"
    others = [
        f"{METRICS[name].label} {METRICS[name].formatted(value)} (bicubic {METRICS[name].formatted(bicubic[name])})"
        for name, value in network.items()
        if name == "ssim_y" or name in PERCEPTUAL
    ]
    return ", ".join([gain, *others])


class _Rows(NamedTuple):
    """The metrics of this rank's images of a set, one row per image."""

    networks: list[list[float]]
    bicubics: list[list[float]]


class _Share(NamedTuple):
    """One rank's share of a validation: the metrics of its images by set, and its numbered rows of the preview."""

    sets: list[_Rows]
    rows: list[tuple[int, Row]]


class _FixedCells(NamedTuple):
    """What stays the same in a row of the preview: the crops of bicubic and HR, and the name of the image."""

    bicubic: Pixels
    hr: Pixels
    name: str


@dataclass(frozen=True)
class _OnDevice:
    """Results of a set's images of this rank that may still be being computed: metrics by batch, crops by image.

    Images are numbered 0, 1, ... on each rank.
    """

    networks: list[Tensor] = field(default_factory=list)
    bicubics: list[Tensor] = field(default_factory=list)
    crops: dict[int, Tensor] = field(default_factory=dict)


class Validation:
    """Evaluates the same images of one or more sets each time. The ranks share the images of all sets equally."""

    def __init__(
        self,
        sets: Sequence[EvaluationSet],
        group: RankGroup = SINGLE_PROCESS_GROUP,
        perceptual: PerceptualMetrics | None = None,
    ) -> None:
        self._sets = sets
        self._group = group
        self._perceptual = perceptual
        self._names = (*OWN, *(perceptual.names if perceptual else ()))
        self._bicubics: list[list[list[float]]] | None = None  # by set and image of this rank, after the first run
        self._fixed_cells: dict[int, _FixedCells] = {}  # by image of this rank in the main set
        self.num_images = sum(one.num_images for one in sets)
        self._previewed = {sets[0].num_images * row // _PREVIEW_ROWS for row in range(_PREVIEW_ROWS)}

    def load(self, max_bytes: int) -> None:
        """Read the photos of this rank once, keeping them in memory up to `max_bytes`.

        UsageError for a photo that cannot be evaluated, before hours of training have passed.
        """
        for one, (rank, ranks) in zip(self._sets, self._shares(), strict=True):
            max_bytes -= one.load(max_bytes, rank, ranks)

    def run(self, network: Network, stop: StopRequest) -> ValidationResult | None:
        """Return the same result on every rank, or None if any of them was asked to stop meanwhile.

        The host waits for the device once, after the last image. RunError for a damaged image, or if the network's
        output is not finite.
        """
        group = self._group
        share = group.run_on_all(lambda: self._evaluate(network, stop))
        if group.any_of(share is None) or share is None:
            return None
        num = len(self._names)
        sums = iter(group.sum([number for one in share.sets for rows in one for number in score_sums(rows, num)]))
        results = {
            one.name: SetMeans(*(mean_scores(self._names, list(islice(sums, 2 * num))) for _ in _Rows._fields))
            for one in self._sets
        }
        rows = sorted(chain(*group.all_gather(share.rows)), key=lambda numbered: numbered[0])
        preview = grid([row for _, row in rows], ("bicubic", "network", "HR"))
        return ValidationResult(results, preview)

    def _shares(self) -> Iterator[tuple[int, int]]:
        """Yield (start, step) for the images of this rank in each set, as if all sets were one."""
        rank, ranks = self._group.rank_info.rank, self._group.world_size
        before = 0
        for one in self._sets:
            yield (rank - before) % ranks, ranks
            before += one.num_images

    def _evaluate(self, network: Network, stop: StopRequest) -> _Share | None:
        """Evaluate this rank's images; None if it was asked to stop."""
        results = []
        for number, (one, (start, step)) in enumerate(zip(self._sets, self._shares(), strict=True)):
            results.append(result := _OnDevice())
            images = count()
            for batch in evaluate_batches(
                network, one.pairs(start, step), with_bicubic=self._bicubics is None, perceptual=self._perceptual
            ):
                result.networks.append(batch.network)
                if batch.bicubic is not None:
                    result.bicubics.append(batch.bicubic)
                for pair, output, image in zip(batch.pairs, batch.outputs, images, strict=False):
                    if number == 0 and self._number(image) in self._previewed:
                        result.crops[image] = _centre(output.permute(1, 2, 0)).clone()
                        if image not in self._fixed_cells:
                            self._fixed_cells[image] = _fixed_cells(pair)
                if stop:
                    return None
        return self._read(results)

    def _read(self, results: Sequence[_OnDevice]) -> _Share:
        """Wait for the device and return the results."""
        on_device = [tensor for one in results for tensor in (*one.networks, *one.bicubics, *one.crops.values())]
        tensors = iter(download(on_device))
        networks, bicubics, crops = [], [], list[tuple[int, Pixels]]()
        for one in results:
            networks.append(to_rows(islice(tensors, len(one.networks))))
            bicubics.append(to_rows(islice(tensors, len(one.bicubics))))
            crops += [(image, next(tensors).numpy()) for image in one.crops]
        if self._bicubics is None:
            self._bicubics = bicubics
        rows = []
        for image, crop in crops:
            fixed = self._fixed_cells[image]
            of_bicubic, of_network = (scores[0][image][_PSNR_Y] for scores in (self._bicubics, networks))
            caption = f"bicubic {of_bicubic:.2f} dB   network {of_network:.2f} dB"
            rows.append((self._number(image), Row([fixed.bicubic, crop, fixed.hr], caption, fixed.name)))
        return _Share(list(map(_Rows, networks, self._bicubics)), rows)

    def _number(self, image: int) -> int:
        """Return the number, among those of all ranks, of this rank's image in the main set."""
        return self._group.rank_info.rank + image * self._group.world_size


def _fixed_cells(pair: Pair) -> _FixedCells:
    bicubic, hr = (np.ascontiguousarray(_centre(image)) for image in (pair.bicubic(), pair.hr))
    return _FixedCells(bicubic, hr, pair.name)


def _centre(image: AnyImage) -> AnyImage:
    """Return a view of the middle of an H x W x 3 image."""
    size = min(_PREVIEW_PX, *image.shape[:2])
    top, left = ((edge - size) // 2 for edge in image.shape[:2])
    return image[top : top + size, left : left + size]
