"""Evaluate several networks side by side on the images of a set."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat, tee

import numpy as np
from torch import Tensor

from srshards.errors import RunError
from srshards.imaging.pixels import Pixels
from trainer.evaluation.evaluate import Tile, evaluate_batches, to_rows
from trainer.evaluation.names import BICUBIC, HR
from trainer.evaluation.pairs import Pair
from trainer.evaluation.perceptual import PerceptualMetrics
from trainer.evaluation.results import ImageResult
from trainer.evaluation.scores import Scores
from trainer.evaluation.sets import EvaluationSet
from trainer.evaluation.transfer import download
from trainer.metrics_table import OWN
from trainer.models import Network

_NO_PIXELS = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class ComparedImage:
    """The values of an image and, if requested, its versions: H x W x 3 uint8 RGB of bicubic, the networks and HR."""

    result: ImageResult
    versions: Mapping[str, Pixels]


@dataclass(frozen=True)
class _NetworkImage:
    """The values of one network's output for an image, and those of bicubic and the output itself if requested."""

    pair: Pair
    network: Scores
    bicubic: Scores
    output: Pixels


@dataclass(frozen=True)
class Comparison:
    """The networks to compare, by name, and how.

    `metrics` are the names of those to report; `perceptual` measures those of them that `measure` does not, and is None
    if there are none. `with_versions` requests the images, which are then copied from the device.
    """

    networks: Mapping[str, Network]
    metrics: Sequence[str]
    perceptual: PerceptualMetrics | None
    tile: Tile
    with_versions: bool

    def run(self, sets: Mapping[bool, EvaluationSet]) -> Iterator[ComparedImage]:
        """Yield the results of each image, in order. `sets` has the same images by `upsampled`, the networks' input.

        All networks process an image before the following ones are read, so that only one batch of outputs per network
        is in memory. Errors are those of `evaluate_batches`; RunError if an output is not finite.
        """
        streams: dict[str, Iterator[_NetworkImage]] = {}
        for upsampled, of_set in sets.items():
            names = [name for name, network in self.networks.items() if (network.spec.scale == 1) == upsampled]
            for name, pairs in zip(names, tee(of_set.pairs(), len(names)), strict=True):
                streams[name] = self._evaluate(name, pairs, with_bicubic=not streams)
        for images in zip(*streams.values(), strict=True):
            first, by_name = images[0], dict(zip(streams, images, strict=True))
            result = ImageResult(
                first.pair.name, {BICUBIC: first.bicubic, **{name: by_name[name].network for name in self.networks}}
            )
            versions = {}
            if self.with_versions:
                outputs = {name: by_name[name].output for name in self.networks}
                versions = {BICUBIC: first.pair.bicubic(), **outputs, HR: first.pair.hr}
            yield ComparedImage(result, versions)

    def _evaluate(self, name: str, pairs: Iterable[Pair], with_bicubic: bool) -> Iterator[_NetworkImage]:
        for batch in evaluate_batches(self.networks[name], pairs, self.tile, with_bicubic, self.perceptual):
            on_host = download([batch.network] if batch.bicubic is None else [batch.network, batch.bicubic])
            try:
                networks, *bicubics = [self._values(to_rows([measured])) for measured in on_host]
            except RunError as error:
                raise RunError(f"{name}: {error}") from error
            outputs = _to_pixels(batch.outputs) if self.with_versions else repeat(_NO_PIXELS)
            yield from map(_NetworkImage, batch.pairs, networks, bicubics[0] if bicubics else repeat({}), outputs)

    def _values(self, rows: Iterable[Sequence[float]]) -> list[Scores]:
        columns = OWN if self.perceptual is None else OWN + self.perceptual.names
        by_column = [dict(zip(columns, row, strict=True)) for row in rows]
        return [{metric: values[metric] for metric in self.metrics} for values in by_column]


def _to_pixels(images: Tensor) -> list[Pixels]:
    return list(np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy()))
