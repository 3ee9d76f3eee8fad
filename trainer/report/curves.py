"""Plots over the steps, all runs laid over each other; colours and dashes tell them apart."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import altair as alt

from srshards.page.plots import SERIES_COLOURS, SERIES_DASHES, Plot
from trainer.report.runs import Run
from trainer.report.thinning import Point

_MAX_ROWS = 200  # of a table, and of places that have a hover
_FEW = 40  # points of a line that are shown as points too
_LINES, _ACROSS, _NEAR = "lines", "across", "near"  # what the charts call their values
_NONE = "\N{EN DASH}"
_LOG_FROM = 8.0  # how many times the lowest value the highest is, for a scale to be logarithmic
_STEPS = alt.Axis(
    labelExpr="format(datum.value, datum.value < 1e5 ? ',' : '~s')", tickMinStep=1, tickCount=8, labelOverlap="parity"
)
_NAME_CHARS = 24  # beside the pointer
_DRAWN = "datum.step >= first && indexof(hidden, datum.run) < 0"


class Quantity(NamedTuple):
    """Something that journals have of every stretch of steps, and how it is written."""

    title: str
    description: str
    unit: str  # the axis's title
    source: str  # an attribute of JournalSummary
    name: str
    written: Callable[[float], str]
    axis: str = ""  # a format of d3
    from_zero: bool = False
    baseline: str = ""  # an attribute of Validated: a line across
    wide: bool = False


_QUANTITIES = (
    Quantity(
        "PSNR-Y",
        "Of the validation images; the straight line is bicubic enlargement, which a network has to beat.",
        *("dB", "validated", "psnr_y", "{:.2f} dB".format, "", False, "bicubic_psnr_y", True),
    ),
    Quantity("Loss", "Of the training patches.", "loss", "trained", "loss", "{:.5f}".format, "~g"),
    Quantity(
        "SSIM-Y",
        "Of the validation images; 1 is a perfect image.",
        *("SSIM", "validated", "ssim_y", "{:.4f}".format, "", False, "bicubic_ssim_y"),
    ),
    Quantity("Learning rate", "As its schedule had it.", "rate", "trained", "lr", "{:.2e}".format, "~e", True),
    Quantity(
        "Patches per second",
        "Through the network and back, without validating and saving.",
        *("patches/s", "trained", "patches_per_s", "{:,.1f}".format, "~s", True),
    ),
    Quantity(
        "Waiting for data",
        "The share of the time in which a step had to wait for its batch.",
        *("share of the time", "trained", "data_wait", "{:.2%}".format, "%", True),
    ),
)
_GAIN = Quantity(
    "Gain over bicubic",
    "PSNR-Y above that of bicubic enlargement of the same images.",
    *("dB", "validated", "gain", "{:+.2f} dB".format),
)


def style(number: int) -> tuple[str, list[int]]:
    """Colour and dashes of the run with this number. The first 64 are all different."""
    turn, colour = divmod(number, len(SERIES_COLOURS))
    return SERIES_COLOURS[colour], SERIES_DASHES[(colour + turn) % len(SERIES_DASHES)]


def plots(runs: Sequence[Run]) -> list[Plot]:
    """Those for which any run has figures."""
    quantities = list(_QUANTITIES)
    if not same_bicubic(runs):
        quantities.insert(1, _GAIN)
    drawn = [_over_steps(quantity, runs) for quantity in quantities]
    drawn.insert(2, _over_time(runs))
    return [plot for plot in drawn if plot is not None]


def same_bicubic(runs: Sequence[Run]) -> bool:
    """Whether all that were validated were judged on images for which bicubic's figures are equal."""
    return len({f"{run.bicubic:.4f}" for run in runs if not math.isnan(run.bicubic)}) <= 1


def _over_steps(quantity: Quantity, runs: Sequence[Run]) -> Plot | None:
    curves = [getattr(run.summary, quantity.source).points(quantity.name) for run in runs]
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
    x = alt.X("x:Q", title="step", axis=_STEPS, scale=alt.Scale(nice=False))
    table = _rows(quantity, runs)
    columns = ("Step", *(run.label for run in runs))
    across = _baselines(quantity, runs)
    near, hover = _hover(columns, table)
    layers = [*_lines(lines, len(runs), x, y, thinned), *_across(across), *hover]
    datasets = {_LINES: lines, _ACROSS: across, _NEAR: near}
    description = quantity.description
    if thinned:
        description += " Long runs: means of stretches of steps, in a band from their lowest to their highest value."
    rows = [[_stretch(row.first, row.last), *row.here] for row in table]
    return Plot(quantity.title, description, _layered(layers), columns, rows, quantity.wide, datasets)


def _lines(
    values: list[dict[str, Any]], num_runs: int, x: alt.X, y: alt.Y, thinned: bool, *tooltip: alt.Tooltip
) -> list[alt.Chart]:
    """A line for each run, points where there are few, and bands where a point stands for many values."""
    numbers = list(range(num_runs))
    colour = alt.Color(
        "run:O", legend=None, scale=alt.Scale(domain=numbers, range=[style(number)[0] for number in numbers])
    )
    dash = alt.StrokeDash(
        "run:O", legend=None, scale=alt.Scale(domain=numbers, range=[style(number)[1] for number in numbers])
    )
    base = alt.Chart(alt.NamedData(name=_LINES)).transform_filter(_DRAWN)
    layers = []
    if thinned:
        opacity = max(0.02, 0.36 / (num_runs + 1))  # many bands lie over each other, and lines have to be seen
        band = base.mark_area(opacity=opacity, line=False, interpolate="linear").transform_filter("isValid(datum.low)")
        layers.append(band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour))
    layers.append(base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, strokeDash=dash))
    counts = [sum(value["run"] == number for value in values) for number in numbers]
    few = [number for number in numbers if counts[number] <= _FEW]
    if few or tooltip:
        dots = base.mark_point(size=36, opacity=1, filled=True).encode(x=x, y=y, color=colour, tooltip=list(tooltip))
        layers.append(dots if tooltip else dots.transform_filter(f"indexof({few}, datum.run) >= 0"))
    return layers


def _baselines(quantity: Quantity, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each different figure of bicubic, and what is written beside it."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        value = getattr(run.summary.last, quantity.baseline) if quantity.baseline and run.summary.last else math.nan
        if not math.isnan(value):
            groups.setdefault(f"{value:.4f}", []).append(run.label)
    lines = []
    for value, labels in groups.items():
        whose = "" if len(groups) == 1 else f" of {labels[0]}" + (", ..." if len(labels) > 1 else "")
        lines.append({"y": float(value), "name": f"bicubic{whose} {quantity.written(float(value))}"})
    return lines


def _across(lines: Sequence[dict[str, Any]]) -> list[alt.Chart]:
    """Lines across the plot, if there are any."""
    if not lines:
        return []
    base = alt.Chart(alt.NamedData(name=_ACROSS))
    y = alt.Y("y:Q")
    text = base.mark_text(align="right", dy=-7, fontSize=12).encode(y=y, x=alt.value("width"), text="name:N")
    return [base.mark_rule(strokeDash=[2, 3], opacity=0.8).encode(y=y), text]


class _Row(NamedTuple):
    """What the runs had in a stretch of steps; `near` has what was nearest to it instead of nothing."""

    first: int
    last: int
    here: list[str]
    near: list[str]


def _rows(quantity: Quantity, runs: Sequence[Run]) -> list[_Row]:
    """So few that a table can hold them."""
    curves = [getattr(run.summary, quantity.source) for run in runs]
    width = max(curve.width for curve in curves)
    while True:
        merged = [{p.last // width: p for p in curve.points(quantity.name, width)} for curve in curves]
        slots = sorted(set().union(*merged))
        if len(slots) <= _MAX_ROWS:
            return [_row(quantity, merged, slot) for slot in slots]
        width *= 2


def _row(quantity: Quantity, merged: Sequence[dict[int, Point]], slot: int) -> _Row:
    there = [curve[slot] for curve in merged if slot in curve]
    row = _Row(min(point.first for point in there), max(point.last for point in there), [], [])
    for curve in merged:
        point = curve.get(slot) or min(curve.values(), key=lambda one: abs(one.last - row.last), default=None)
        text = quantity.written(point.mean) if point else _NONE
        row.here.append(text if slot in curve else _NONE)
        row.near.append(f"{text} at {_stretch(point.first, point.last)}" if point and slot not in curve else text)
    return row


def _short(value: float) -> float:
    """As exact as can be seen."""
    return float(f"{value:.6g}")


def _stretch(first: int, last: int) -> str:
    return f"{last:,}" if first == last else f"{first:,}\N{EN DASH}{last:,}"


def _hover(columns: Sequence[str], table: Sequence[_Row]) -> tuple[list[dict[str, Any]], list[alt.Chart]]:
    """What all runs have at the step that is nearest to the pointer, and a line there."""
    at = [row.last for row in table]
    middles = [(one + other) / 2 for one, other in pairwise(at)]
    lefts, rights = [at[0] if middles else at[0] - 0.5, *middles], [*middles, at[-1] if middles else at[0] + 0.5]
    values = [
        {"x": row.last, "left": left, "right": right, "step": row.last, "t": _stretch(row.first, row.last)}
        | {f"r{number}": text for number, text in enumerate(row.near)}
        for row, left, right in zip(table, lefts, rights, strict=True)
    ]
    near = alt.selection_point(name="near", on="pointerover", clear="pointerout", fields=["x"], empty=False)
    tooltip = [alt.Tooltip("t:N", title=columns[0])]
    tooltip += [alt.Tooltip(f"r{number}:N", title=_plain(label)) for number, label in enumerate(columns[1:])]
    base = alt.Chart(alt.NamedData(name=_NEAR)).transform_filter("datum.step >= first")
    rule = base.mark_rule(aria=False).encode(x="x:Q", opacity=alt.condition(near, alt.value(0.6), alt.value(0)))
    areas = base.mark_rect(aria=False, opacity=0).encode(x="left:Q", x2="right:Q", tooltip=tooltip)
    return values, [rule, areas.add_params(near)]


def _plain(label: str) -> str:
    """A name as Vega can have it in an expression, which it does not quote in full; two dozen have to fit a phone."""
    if len(label) > _NAME_CHARS:
        label = f"{label[: _NAME_CHARS // 3]}…{label[-(_NAME_CHARS * 2 // 3 - 1) :]}"
    return "".join(char if char.isprintable() and char not in '"\\' else "\N{REPLACEMENT CHARACTER}" for char in label)


def _layered(layers: Sequence[alt.Chart]) -> alt.LayerChart:
    """The page's controls set `first`, a step, and `hidden`, the numbers of runs that are not to be drawn."""
    first, hidden = alt.param(name="first", value=0), alt.param(name="hidden", value=[])
    chart: alt.LayerChart = alt.layer(*layers).properties(height=250).add_params(first, hidden)
    return chart


def _over_time(runs: Sequence[Run]) -> Plot | None:
    """PSNR-Y by the time that training took: what a step of another network costs is in it."""
    curves = [run.summary.validated for run in runs]
    width = max(curve.width for curve in curves)
    longest = max((run.summary.trained_s for run in runs), default=0.0)
    unit, seconds = next((u, s) for u, s in (("h", 3600), ("min", 60), ("s", 1)) if longest > 3 * s or s == 1)
    while True:
        found = [
            (number, psnr, time)
            for number, curve in enumerate(curves)
            for psnr, time in _both(curve.points("psnr_y", width), curve.points("trained_s", width))
        ]
        if len(found) <= _MAX_ROWS:
            break
        width *= 2
    if not found or longest <= 0:
        return None
    values, rows = [], []
    for number, psnr, time in found:
        at = _stretch(psnr.first, psnr.last)
        texts = runs[number].label, at, f"{time.mean / seconds:,.2f}", f"{psnr.mean:.2f} dB"
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
    across = _baselines(_QUANTITIES[0], runs)
    layers = [*_lines(values, len(runs), x, y, False, *tooltip), *_across(across)]
    description = "What the time has bought; validating and saving do not count. Times are those of each run's machine."
    datasets = {_LINES: values, _ACROSS: across}
    return Plot("PSNR-Y over training time", description, _layered(layers), columns, rows, datasets=datasets)


def _both(psnrs: Sequence[Point], times: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Those of one stretch."""
    by_last = {time.last: time for time in times}
    return [(psnr, by_last[psnr.last]) for psnr in psnrs if psnr.last in by_last]
