"""The metric and the set by which the best weights are chosen. Does not import PyTorch."""

import math
from typing import NamedTuple

from srshards.errors import UsageError
from srshards.terminal.text import did_you_mean
from trainer.evaluation.set_names import MAIN_SET
from trainer.metrics_table import METRICS


class BestBy(NamedTuple):
    """A metric of METRICS, and the set that it is the mean over; an empty name stands for the first set of a run."""

    metric: str
    set: str = ""

    def __str__(self) -> str:
        return f"{self.metric}@{self.set}" if self.set else self.metric

    @property
    def name(self) -> str:
        """The metric, and the set unless it is the validation split: `PSNR-Y`, `LPIPS on Set5`."""
        return METRICS[self.metric].label + (f" on {self.set}" if self.set not in ("", MAIN_SET) else "")

    def described(self, value: float) -> str:
        """Return a value with its unit and name: `31.04 dB PSNR-Y`, `0.1234 LPIPS on Set5`."""
        return f"{METRICS[self.metric].formatted(value)} {self.name}"

    def shortened(self, value: float) -> str:
        """Return the same, without the name of PSNR-Y on the validation split, for narrow displays."""
        return METRICS[self.metric].formatted(value) if self == ("psnr_y", MAIN_SET) else self.described(value)

    def is_better(self, value: float, best: float | None) -> bool:
        """Return whether a value is better than the best so far, None if there is none. NaN is never better."""
        return not math.isnan(value) and (best is None or METRICS[self.metric].is_better(value, best))


def parse_best(text: str) -> BestBy:
    """Parse `METRIC` or `METRIC@SET`. UsageError for an unknown metric, or for no set after the `@`."""
    metric, separator, name = text.partition("@")
    if metric not in METRICS:
        hint = did_you_mean(metric, METRICS, 2) or f"expected one of {', '.join(METRICS)}"
        raise UsageError(f"unknown metric {metric!r}; {hint}")
    if separator and not name:
        raise UsageError(f"{text!r} has no set after the @; expected e.g. {metric}@{MAIN_SET}")
    return BestBy(metric, name)
