"""The plots of the page: one per quantity over the steps, with all runs and a table of values."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import altair as alt

from srshards.page.plots import Plot
from trainer.metrics_table import METRICS, PERCEPTUAL
from trainer.report.charts import (
    BASELINES,
    LINES,
    NEAREST,
    STEPS,
    Row,
    baseline_layers,
    hover_layers,
    layered,
    line_layers,
    range_text,
)
from trainer.report.runs import Run, same_bicubic
from trainer.report.thinning import Point, Thinned
from trainer.report.wall_clock import wall_clock

_MAX_ROWS = 200  # of a table, and of steps with a tooltip
_NONE = "\N{EN DASH}"
_LOG_FROM = 8.0  # ratio of the highest to the lowest loss from which its axis is logarithmic


class Quantity(NamedTuple):
    """A quantity in the journals and its presentation."""

    title: str
    description: str
    unit: str  # title of the axis
    source: str  # attribute of JournalSummary
    name: str
    formatted: Callable[[float], str]
    axis: str = ""  # d3 format
    from_zero: bool = False
    baseline: str = ""  # attribute of Validated, drawn as a horizontal line
    wide: bool = False
    set: str = ""  # whose curve it is; empty for the attribute `source`


_QUANTITIES = (
    Quantity(
        "PSNR-Y",
        "Mean over the validation images. The straight line is bicubic upscaling, the baseline.",
        *("dB", "validated", "psnr_y", "{:.2f} dB".format, "", False, "bicubic_psnr_y", True),
    ),
    Quantity("Loss", "Mean over the training patches.", "loss", "trained", "loss", "{:.5f}".format, "~g"),
    Quantity(
        "SSIM-Y",
        "Mean over the validation images. The maximum is 1.",
        *("SSIM", "validated", "ssim_y", "{:.4f}".format, "", False, "bicubic_ssim_y"),
    ),
    Quantity("Learning rate", "As scheduled.", "rate", "trained", "lr", "{:.2e}".format, "~e", True),
    Quantity(
        "Patches per second",
        "Training throughput, excluding validation and saving.",
        *("patches/s", "trained", "patches_per_s", "{:,.1f}".format, "~s", True),
    ),
    Quantity(
        "Waiting for data",
        "Share of the training time spent waiting for batches.",
        *("share of time", "trained", "data_wait", "{:.2%}".format, "%", True),
    ),
)
_GAIN = Quantity(
    "Gain over bicubic",
    "PSNR-Y minus that of bicubic upscaling of the same images.",
    *("dB", "validated", "gain", "{:+.2f} dB".format),
)


def plots_of_sets(runs: Sequence[Run]) -> list[Plot]:
    """Return plots of PSNR-Y, SSIM-Y and what else was measured on each set.

    Those of PSNR-Y and SSIM-Y on a set that is the main one of all its runs are among `plots`.
    """
    names = dict.fromkeys(name for run in runs for name in run.summary.sets)
    others = {name for run in runs for name in list(run.summary.sets)[1:]}
    wanted = ((("psnr_y", "ssim_y", *PERCEPTUAL) if name in others else PERCEPTUAL, name) for name in names)
    drawn = (_over_steps(_of_set(metric, name), runs) for metrics, name in wanted for metric in metrics)
    return [plot for plot in drawn if plot is not None]


def _of_set(metric: str, name: str) -> Quantity:
    row = METRICS[metric]
    better = "Higher" if row.higher_is_better else "Lower"
    description = f"Mean over the images. {better} is better. The straight line is bicubic upscaling."
    return Quantity(f"{row.label} on {name}", description, row.unit or row.label, "", metric, row.formatted, set=name)


def plots(runs: Sequence[Run]) -> list[Plot]:
    """Return a plot for each quantity that any run has values of, and one of the wall-clock time."""
    quantities = list(_QUANTITIES)
    if not same_bicubic(runs):
        quantities.insert(1, _GAIN)
    drawn = [_over_steps(quantity, runs) for quantity in quantities]
    drawn.insert(2, _over_time(runs))
    drawn.append(wall_clock(runs))
    return [plot for plot in drawn if plot is not None]


def _over_steps(quantity: Quantity, runs: Sequence[Run]) -> Plot | None:
    curves = [curve.points(quantity.name) for curve in _curves(quantity, runs)]
    points = [point for curve in curves for point in curve]
    if not points:
        return None
    lines = [
        {"run": number, "step": p.last, "x": p.last, "y": _short(p.mean)}
        | ({"low": _short(p.low), "high": _short(p.high)} if p.num > 1 else {})
        for number, curve in enumerate(curves)
        for p in curve
    ]
    thinned = any(p.num > 1 for p in points)
    means = [p.mean for p in points]
    log = quantity.name == "loss" and min(means) > 0 and max(means) > _LOG_FROM * min(means)
    scale = alt.Scale(type="log") if log else alt.Scale(zero=quantity.from_zero)
    axis = alt.Axis(format=quantity.axis) if quantity.axis else alt.Axis()
    y = alt.Y("y:Q", title=quantity.unit + (", logarithmic" if log else ""), scale=scale, axis=axis)
    x = alt.X("x:Q", title="step", axis=STEPS, scale=alt.Scale(nice=False))
    table = _rows(quantity, runs)
    columns = ("Step", *(run.label for run in runs))
    baselines = _baselines(quantity, runs)
    nearest, hover = hover_layers(columns, table)
    layers = [*line_layers(lines, len(runs), x, y, thinned), *baseline_layers(baselines), *hover]
    datasets = {LINES: lines, BASELINES: baselines, NEAREST: nearest}
    description = quantity.description
    if thinned:
        description += " Long runs are shown as means over ranges of steps, in bands from their minimum to maximum."
    rows = [[range_text(row.first, row.last), *row.values] for row in table]
    return Plot(quantity.title, description, layered(layers), columns, rows, quantity.wide, datasets)


def _baselines(quantity: Quantity, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return each distinct value of bicubic with its label."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        value = _baseline(quantity, run)
        if not math.isnan(value):
            groups.setdefault(f"{value:.4f}", []).append(run.label)
    lines = []
    for text, labels in groups.items():
        whose = "" if len(groups) == 1 else f" of {labels[0]}" + (", ..." if len(labels) > 1 else "")
        lines.append({"y": float(text), "name": f"bicubic{whose} {quantity.formatted(float(text))}"})
    return lines


def _baseline(quantity: Quantity, run: Run) -> float:
    """Return the value of bicubic; NaN if there is none."""
    if quantity.set:
        return run.summary.of_set(quantity.set).bicubic.get(quantity.name, math.nan)
    last = run.summary.last
    return float(getattr(last, quantity.baseline)) if quantity.baseline and last else math.nan


def _curves(quantity: Quantity, runs: Sequence[Run]) -> list[Thinned]:
    """Return the curves that have the quantity, by run."""
    if quantity.set:
        return [run.summary.of_set(quantity.set).curves for run in runs]
    return [getattr(run.summary, quantity.source) for run in runs]


def _rows(quantity: Quantity, runs: Sequence[Run]) -> list[Row]:
    """Return the rows of the table, merged to at most _MAX_ROWS."""
    curves = _curves(quantity, runs)
    width = max(curve.width for curve in curves)
    while True:
        merged = [{p.last // width: p for p in curve.points(quantity.name, width)} for curve in curves]
        slots = sorted(set().union(*merged))
        if len(slots) <= _MAX_ROWS:
            return [_row(quantity, merged, slot) for slot in slots]
        width *= 2


def _row(quantity: Quantity, merged: Sequence[dict[int, Point]], slot: int) -> Row:
    points = [curve[slot] for curve in merged if slot in curve]
    row = Row(min(point.first for point in points), max(point.last for point in points), [], [])
    for curve in merged:
        point = curve.get(slot) or min(curve.values(), key=lambda one: abs(one.last - row.last), default=None)
        text = quantity.formatted(point.mean) if point else _NONE
        row.values.append(text if slot in curve else _NONE)
        row.nearest.append(f"{text} at {range_text(point.first, point.last)}" if point and slot not in curve else text)
    return row


def _short(value: float) -> float:
    """Round to six significant digits, to keep the page small."""
    return float(f"{value:.6g}")


def _over_time(runs: Sequence[Run]) -> Plot | None:
    """Return the plot of PSNR-Y over training time, which compares networks of different cost per step."""
    curves = [run.summary.validated for run in runs]
    width = max(curve.width for curve in curves)
    longest = max((run.summary.trained_s for run in runs), default=0.0)
    unit, seconds = next((u, s) for u, s in (("h", 3600), ("min", 60), ("s", 1)) if longest > 3 * s or s == 1)
    while True:
        found = [
            (number, psnr, time)
            for number, curve in enumerate(curves)
            for psnr, time in _paired_points(curve.points("psnr_y", width), curve.points("trained_s", width))
        ]
        if len(found) <= _MAX_ROWS:
            break
        width *= 2
    if not found or longest <= 0:
        return None
    values, rows = [], []
    for number, psnr, time in found:
        steps = range_text(psnr.first, psnr.last)
        texts = runs[number].label, steps, f"{time.mean / seconds:,.2f}", f"{psnr.mean:.2f} dB"
        value = {"run": number, "step": psnr.last, "x": time.mean / seconds, "y": psnr.mean}
        values.append(value | dict(zip(("label", "t", "time", "text"), texts, strict=True)))
        rows.append(texts)
    columns = ("Run", "Step", f"Time ({unit})", "PSNR-Y")
    tooltip = [
        alt.Tooltip(f"{field}:N", title=title)
        for field, title in zip(("label", "t", "time", "text"), columns, strict=True)
    ]
    x = alt.X("x:Q", title=f"training time ({unit})", scale=alt.Scale(nice=False))
    y = alt.Y("y:Q", title="dB", scale=alt.Scale(zero=False))
    baselines = _baselines(_QUANTITIES[0], runs)
    layers = [*line_layers(values, len(runs), x, y, False, *tooltip), *baseline_layers(baselines)]
    description = "Training time on each run's machine, excluding validation and saving."
    datasets = {LINES: values, BASELINES: baselines}
    return Plot("PSNR-Y over training time", description, layered(layers), columns, rows, datasets=datasets)


def _paired_points(psnrs: Sequence[Point], times: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Pair the points of the same range of steps."""
    by_last = {time.last: time for time in times}
    return [(psnr, by_last[psnr.last]) for psnr in psnrs if psnr.last in by_last]
