"""The plots of the page: one per quantity over the steps, with all runs and a table of values."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from srshards.page.plots import Plot
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
    scale_of_single,
)
from trainer.report.quantities import PSNR, Quantity, quantities, quantities_of_sets
from trainer.report.runs import Run
from trainer.report.thinning import Point, Thinned
from trainer.report.wall_clock import wall_clock

_MAX_ROWS = 200  # of a table, and of steps with a tooltip
_NONE = "\N{EN DASH}"
_LOG_FROM = 8.0  # ratio of the highest to the lowest loss from which its axis is logarithmic


def plots(runs: Sequence[Run]) -> list[Plot]:
    """Return a plot for each quantity that any run has values of, and one of the wall-clock time."""
    drawn = [_over_steps(quantity, runs) for quantity in quantities(runs)]
    drawn.insert(2, _over_time(runs))
    drawn.append(wall_clock(runs))
    drawn += [_over_steps(quantity, runs) for quantity in quantities_of_sets(runs)]
    return [plot for plot in drawn if plot is not None]


def _over_steps(quantity: Quantity, runs: Sequence[Run]) -> Plot | None:
    curves = [quantity.curve(run.summary) for run in runs]
    names = quantity.lines or (quantity.name,)
    drawn = [
        (number, name, p)
        for name in names
        for number, curve in enumerate(curves)
        for p in _points(curve, name, quantity.max_points)
    ]
    if not drawn:
        return None
    lines = [
        {"run": number, "step": p.last, "x": p.last, "y": _short(p.mean)}
        | ({"low": _short(p.low), "high": _short(p.high)} if p.num > 1 else {})
        | ({"line": name} if quantity.lines else {})
        for number, name, p in drawn
    ]
    thinned = any(p.num > 1 for *_, p in drawn)
    means = [p.mean for *_, p in drawn]
    log = quantity.log and min(p.low for *_, p in drawn) > 0 and max(means) > _LOG_FROM * min(means)
    baselines = _baselines(quantity, runs)
    scale = alt.Scale(type="log") if log else alt.Scale(zero=quantity.from_zero)
    if not log and not quantity.from_zero and len({(number, name) for number, name, _ in drawn}) == len(drawn):
        scale = scale_of_single([*means, *(line["y"] for line in baselines)], quantity.unit)
    axis = alt.Axis(format=quantity.axis) if quantity.axis else alt.Axis()
    y = alt.Y("y:Q", title=quantity.unit + (", logarithmic" if log else ""), scale=scale, axis=axis)
    # That of the runs in all plots, also of what begins late or ends early; `first` is set by the page's controls.
    last_step = max(1, *(run.summary.step for run in runs))
    x_scale = alt.Scale(nice=False, domainMin=alt.ExprRef("first"), domainMax=last_step)
    x = alt.X("x:Q", title="step", axis=STEPS, scale=x_scale)
    table = _rows(quantity, curves)
    columns = ["Step", *(run.name + (f", {name}" if quantity.lines else "") for run in runs for name in names)]
    nearest, hover = hover_layers(["Step", *(run.short for run in runs)], table, last_step)
    of_runs = line_layers(lines, len(runs), x, y, thinned, lines_of_run=quantity.lines)
    layers = [*baseline_layers(baselines), *of_runs, *hover]
    datasets = {LINES: lines, BASELINES: baselines, NEAREST: nearest}
    description = quantity.description
    if thinned:
        description += " Long runs are shown as means over ranges of steps, in bands from their minimum to maximum."
    rows = [[range_text(row.first, row.last), *row.values] for row in table]
    return Plot(quantity.title, description, layered(layers), columns, rows, quantity.wide, datasets)


def _points(curve: Thinned, name: str, max_points: int) -> list[Point]:
    """Return the points of a quantity, over wider ranges of steps if there are more than `max_points` (0: any)."""
    width = curve.width
    points = curve.points(name)
    while max_points and len(points) > max_points:
        width *= 2
        points = curve.points(name, width)
    return points


def _baselines(quantity: Quantity, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return each distinct value of bicubic with its label."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        value = _baseline(quantity, run)
        if not math.isnan(value):
            groups.setdefault(f"{value:.4f}", []).append(run.short)
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


def _rows(quantity: Quantity, curves: Sequence[Thinned]) -> list[Row]:
    """Return the rows of the table, merged to at most _MAX_ROWS."""
    names = quantity.lines or (quantity.name,)
    width = max(curve.width for curve in curves)
    while True:
        merged = [[{p.last // width: p for p in curve.points(name, width)} for name in names] for curve in curves]
        slots = sorted({slot for of_run in merged for line in of_run for slot in line})
        if len(slots) <= min(_MAX_ROWS, quantity.max_points or _MAX_ROWS):
            return [_row(quantity, merged, slot) for slot in slots]
        width *= 2


def _row(quantity: Quantity, merged: Sequence[Sequence[dict[int, Point]]], slot: int) -> Row:
    """Return the row of a range of steps. `merged` has the points of each line of each run; lines have equal slots."""
    points = [line[slot] for of_run in merged for line in of_run if slot in line]
    row = Row(min(point.first for point in points), max(point.last for point in points), [], [])
    for of_run in merged:
        near = [line.get(slot) or min(line.values(), key=lambda p: abs(p.last - row.last)) for line in of_run if line]
        texts = [quantity.formatted(p.mean) for p in near]
        labelled = [f"{name} {text}" for name, text in zip(quantity.lines, texts, strict=False)] or texts
        text = ", ".join(labelled) or _NONE
        has_value = slot in of_run[0]
        row.values.extend(texts if has_value else [_NONE] * len(of_run))
        row.nearest.append(f"{text} at {range_text(near[0].first, near[0].last)}" if near and not has_value else text)
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
        texts = runs[number].short, steps, f"{time.mean / seconds:,.2f}", f"{psnr.mean:.2f} dB"
        value = {"run": number, "step": psnr.last, "x": time.mean / seconds, "y": psnr.mean}
        values.append(value | dict(zip(("label", "t", "time", "text"), texts, strict=True)))
        rows.append((runs[number].name, *texts[1:]))
    columns = ("Run", "Step", f"Time ({unit})", "PSNR-Y")
    tooltip = [
        alt.Tooltip(f"{field}:N", title=title)
        for field, title in zip(("label", "t", "time", "text"), columns, strict=True)
    ]
    baselines = _baselines(PSNR, runs)
    is_single = len({number for number, *_ in found}) == len(found)
    x = alt.X("x:Q", title=f"training time ({unit})", scale=alt.Scale(nice=False, zero=is_single))
    psnrs = [*(psnr.mean for _, psnr, _ in found), *(line["y"] for line in baselines)]
    y = alt.Y("y:Q", title="dB", scale=scale_of_single(psnrs, "dB") if is_single else alt.Scale(zero=False))
    layers = [*baseline_layers(baselines), *line_layers(values, len(runs), x, y, False, *tooltip)]
    description = "Training time on each run's machine, excluding validation and saving."
    datasets = {LINES: values, BASELINES: baselines}
    return Plot("PSNR-Y over training time", description, layered(layers), columns, rows, datasets=datasets)


def _paired_points(psnrs: Sequence[Point], times: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Pair the points of the same range of steps."""
    by_last = {time.last: time for time in times}
    return [(psnr, by_last[psnr.last]) for psnr in psnrs if psnr.last in by_last]
