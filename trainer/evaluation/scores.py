"""Values of metrics by name, and their means over the images of a set, which the ranks of a run may share."""

import math
from collections.abc import Sequence
from typing import TypeAlias

from trainer.metrics_table import METRICS

Scores: TypeAlias = dict[str, float]  # by name of the metric, see METRICS


def score_sums(rows: Sequence[Sequence[float]], num_metrics: int) -> list[float]:
    """Return, for each metric, the count and the sum of its finite values. These add up across ranks.

    `rows` has the values of each image.
    """
    columns = [[row[metric] for row in rows if math.isfinite(row[metric])] for metric in range(num_metrics)]
    return [number for values in columns for number in (len(values), math.fsum(values))]


def mean_scores(names: Sequence[str], sums: Sequence[float]) -> Scores:
    """Return the mean of each metric for the result of `score_sums`; without a finite value, inf for PSNR, else NaN.

    The PSNR of identical images is infinite. Such images are excluded from the mean PSNR, which they would otherwise
    dominate, but count in the mean SSIM. If all images are identical to their targets, the mean PSNR is inf.
    """
    return {
        name: total / count if count else math.inf if METRICS[name].unit == "dB" else math.nan
        for name, count, total in zip(names, sums[::2], sums[1::2], strict=True)
    }
