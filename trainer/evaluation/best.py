"""The metric and the set by which the best weights are chosen. Does not import PyTorch."""

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

    def described(self, value: float) -> str:
        """Return a value with its metric, and its set unless that is the validation split: `0.1234 LPIPS on Set5`."""
        on = f" on {self.set}" if self.set not in ("", MAIN_SET) else ""
        return f"{format_score(self.metric, value)} {METRICS[self.metric].label}{on}"

    def is_better(self, value: float, best: float | None) -> bool:
        """Return whether a value is better than the best so far, None if there is none. NaN is never better."""
        if best is None:
            return value == value
        return value > best if METRICS[self.metric].higher_is_better else value < best


def parse_best(text: str) -> BestBy:
    """Parse `METRIC` or `METRIC@SET`. UsageError for an unknown metric, or for no set after the `@`."""
    metric, separator, name = text.partition("@")
    if metric not in METRICS:
        hint = did_you_mean(metric, METRICS) or f"expected one of {', '.join(METRICS)}"
        raise UsageError(f"unknown metric {metric!r}; {hint}")
    if separator and not name:
        raise UsageError(f"{text!r} has no set after the @; expected e.g. {metric}@{MAIN_SET}")
    return BestBy(metric, name)


def format_score(metric: str, value: float) -> str:
    """Return a value with its unit: `31.04 dB`, `0.8912`."""
    row = METRICS[metric]
    return f"{value:.{row.decimals}f}" + (f" {row.unit}" if row.unit else "")
