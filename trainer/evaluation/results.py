"""Values of metrics per image, their means, and which version is the best on how many images. Without PyTorch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainer.evaluation.names import BICUBIC
from trainer.evaluation.scores import Scores, mean_scores, score_sums
from trainer.metrics_table import METRICS

_UNDEFINED = "\N{EN DASH}"


@dataclass(frozen=True)
class ImageResult:
    """The values of an image by version, bicubic and the networks, and metric.

    The PSNR of identical images is inf; a perceptual metric that is not defined for an image is NaN.
    """

    image: str
    versions: Mapping[str, Scores]


@dataclass(frozen=True)
class SetResult:
    """The results for a set of images. `data` is the folder, with the split of shards."""

    name: str
    data: str
    scale: int
    images: list[ImageResult] = field(default_factory=list)

    def means(self) -> dict[str, Scores]:
        """Return the mean values by version and metric, as `mean_scores` does."""
        names = list(self.images[0].versions[BICUBIC])
        rows = {
            version: [[one.versions[version][name] for name in names] for one in self.images]
            for version in self.images[0].versions
        }
        return {version: mean_scores(names, score_sums(values, len(names))) for version, values in rows.items()}

    def wins(self) -> dict[str, dict[str, int]]:
        """Return by metric and version, bicubic or a network, on how many images it is better than all others.

        Images whose best value several versions share count for none of them.
        """
        first = self.images[0].versions
        wins = {metric: dict.fromkeys(first, 0) for metric in first[BICUBIC]}
        for one in self.images:
            for metric, counts in wins.items():
                best = best_of({version: values[metric] for version, values in one.versions.items()}, metric)
                if len(best) == 1:
                    counts[best[0]] += 1
        return wins


def best_of(values: Mapping[str, float], metric: str) -> list[str]:
    """Return the names whose value of the metric is the best; none if it is not defined for all of them."""
    if any(map(math.isnan, values.values())):
        return []
    best = (max if METRICS[metric].higher_is_better else min)(values.values())
    return [name for name, value in values.items() if value == best]


def value_text(metric: str, value: float) -> str:
    """Return a value for tables, with its unit; a dash where the metric is not defined."""
    return _UNDEFINED if math.isnan(value) else METRICS[metric].formatted(value)
