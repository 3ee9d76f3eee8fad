"""Values of metrics per image, their means, and which network is the best on how many images. Without PyTorch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from trainer.evaluation.names import BICUBIC
from trainer.metrics_table import METRICS

UNDEFINED = "\N{EN DASH}"  # for the value of a metric that is not defined for an image

# By metric. The PSNR of identical images is inf; a perceptual metric that is not defined for an image is NaN.
Values: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class ImageResult:
    """The values of an image, by version: bicubic and the networks."""

    image: str
    versions: Mapping[str, Values]


@dataclass(frozen=True)
class SetResult:
    """The results for a set of images. `data` is the folder, with the split of shards."""

    name: str
    data: str
    scale: int
    images: list[ImageResult] = field(default_factory=list)

    def means(self) -> dict[str, dict[str, float]]:
        """Return the mean values by version and metric.

        The PSNR of identical images is infinite. Such images are excluded from the mean PSNR, as in `mean_quality`. If
        all are identical, it is inf. Images for which a metric is not defined are excluded, too; the mean of none is
        NaN.
        """
        return {
            version: {metric: _mean([one.versions[version][metric] for one in self.images]) for metric in values}
            for version, values in self.images[0].versions.items()
        }

    def wins(self) -> dict[str, dict[str, int]]:
        """Return by metric and network on how many images the network is better than all others.

        Images whose best value several networks share count for none of them. Bicubic does not take part: an image on
        which it is the best still has a best network.
        """
        first = self.images[0].versions
        networks = [version for version in first if version != BICUBIC]
        wins = {metric: dict.fromkeys(networks, 0) for metric in first[networks[0]]}
        for one in self.images:
            for metric, counts in wins.items():
                best = best_of({network: one.versions[network][metric] for network in networks}, metric)
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
    """Return a value for tables, with its unit."""
    described = METRICS[metric]
    unit = f" {described.unit}" if described.unit else ""
    return UNDEFINED if math.isnan(value) else f"{value:.{described.decimals}f}{unit}"


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        return math.fsum(finite) / len(finite)
    return math.inf if math.inf in values else math.nan
