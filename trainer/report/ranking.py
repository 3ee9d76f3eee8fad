"""The order of the runs on the page, and which of them are too short to be compared."""

import math
from collections.abc import Sequence

from trainer.report.runs import Run, same_bicubic

SHORT_SHARE = 0.05  # of the steps of the best run


def ranked(runs: Sequence[Run]) -> list[Run]:
    """Return the runs by their best PSNR-Y, or by their gain over bicubic if their bicubic differs.

    Runs without it follow, in the given order.
    """
    result = _psnr if same_bicubic(runs) else _gain
    return sorted(runs, key=result, reverse=True)


def divided(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Divide ranked runs into those to compare, and short ones.

    A run is short if it has no validation though the best run has one, or if it has one only, and less than
    SHORT_SHARE of the steps of the best run.
    """
    best = runs[0]
    if best.summary.best is None:
        return list(runs), []
    few_steps = SHORT_SHARE * best.summary.step
    short = [run for run in runs if run.summary.num_validations < (2 if run.summary.step < few_steps else 1)]
    return [run for run in runs if run not in short], short


def _psnr(run: Run) -> float:
    return run.summary.best.psnr_y if run.summary.best else -math.inf


def _gain(run: Run) -> float:
    gain = run.summary.best.gain if run.summary.best else math.nan
    return -math.inf if math.isnan(gain) else gain
