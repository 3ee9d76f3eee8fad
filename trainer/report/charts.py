"""Vega layers over steps or training time: one line per run, distinguished by colour and dash pattern."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import altair as alt

from srshards.page.plots import SERIES_COLOURS, SERIES_DASHES

LINES, BASELINES, NEAREST = "lines", "baselines", "nearest"  # names of the charts' datasets
STEPS = alt.Axis(
    labelExpr="format(datum.value, datum.value < 1e5 ? ',' : '~s')",
    tickMinStep=1,
    tickCount=8,
    labelOverlap="greedy",
    labelSeparation=8,
)
_WIDTHS = (3.5, 1.25)  # of the lines of a run, if there are two
_SINGLE_SPAN_DB, _SINGLE_SPAN = 0.5, 0.05  # least height of the axis of single values; the latter as their share
_MAX_MARKED = 40  # a line with at most this many points also shows them as markers
_BASELINE_DASHES = ([2, 3], [7, 3], [1, 5])
_DRAWN = "datum.step >= first && indexof(hidden, datum.run) < 0"


class Row(NamedTuple):
    """A table row: the runs' values in a range of steps. `nearest` has the nearest value where `values` has none."""

    first: int
    last: int
    values: list[str]
    nearest: list[str]


def style(number: int) -> tuple[str, list[int]]:
    """Return colour and dash pattern of the run with this number; the first 64 are distinct."""
    cycle, colour = divmod(number, len(SERIES_COLOURS))
    return SERIES_COLOURS[colour], SERIES_DASHES[(colour + cycle) % len(SERIES_DASHES)]


def line_layers(
    values: list[dict[str, Any]],
    num_runs: int,
    x: alt.X,
    y: alt.Y,
    thinned: bool,
    *tooltip: alt.Tooltip,
    lines_of_run: Sequence[str] = (),
) -> list[alt.Chart]:
    """Return a line per run, with markers where points are few and min-max bands where points are means.

    If a run has two lines, whose names are `lines_of_run` and in the field `line`, they differ in width.
    """
    numbers = list(range(num_runs))
    colour = alt.Color(
        "run:O", legend=None, scale=alt.Scale(domain=numbers, range=[style(number)[0] for number in numbers])
    )
    dash = alt.StrokeDash(
        "run:O", legend=None, scale=alt.Scale(domain=numbers, range=[style(number)[1] for number in numbers])
    )
    base = alt.Chart(alt.NamedData(name=LINES)).transform_filter(_DRAWN)
    layers = []
    if thinned:
        opacity = max(0.02, 0.36 / (num_runs + 1))  # bands overlap and must not hide the lines
        band = base.mark_area(opacity=opacity, line=False, interpolate="linear").transform_filter("isValid(datum.low)")
        detail = {"detail": "line:N"} if lines_of_run else {}
        layers.append(band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour, **detail))
    lines = base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, strokeDash=dash)
    if lines_of_run:
        widths = alt.Scale(domain=list(lines_of_run), range=list(_WIDTHS))
        lines = lines.encode(size=alt.Size("line:O", scale=widths, legend=None))
    layers.append(lines)
    counts = [sum(value["run"] == number for value in values) for number in numbers]
    marked = [number for number in numbers if 0 < counts[number] <= _MAX_MARKED]
    if marked or tooltip:
        dots = base.mark_point(size=36, opacity=1, filled=True).encode(x=x, y=y, color=colour, tooltip=list(tooltip))
        layers.append(dots if tooltip else dots.transform_filter(f"indexof({marked}, datum.run) >= 0"))
    return layers


def baseline_layers(lines: Sequence[dict[str, Any]]) -> list[alt.Chart]:
    """Return horizontal lines with a legend above the plot, where it covers no curve, if there are any lines."""
    if not lines:
        return []
    names = [line["name"] for line in lines]
    dashes = [_BASELINE_DASHES[number % len(_BASELINE_DASHES)] for number in range(len(names))]
    dash = alt.StrokeDash(
        "name:N",
        scale=alt.Scale(domain=names, range=dashes),
        legend=alt.Legend(columns=1, symbolStrokeColor="var(--text)", symbolStrokeWidth=1.5, symbolSize=600),
    )
    rule = alt.Chart(alt.NamedData(name=BASELINES)).mark_rule(strokeWidth=1.5, opacity=0.8)
    return [rule.encode(y=alt.Y("y:Q"), strokeDash=dash)]


def hover_layers(
    columns: Sequence[str], table: Sequence[Row], last_step: int
) -> tuple[list[dict[str, Any]], list[alt.Chart]]:
    """Return data and layers of a tooltip and a rule with all runs' values at the step nearest to the pointer.

    `last_step` is the last one of the x axis.
    """
    steps = [row.last for row in table]
    middles = [(one + other) / 2 for one, other in pairwise(steps)]
    lefts, rights = [0, *middles], [*middles, last_step]
    values = [
        {"x": row.last, "left": left, "right": right, "step": row.last, "t": range_text(row.first, row.last)}
        | {f"r{number}": text for number, text in enumerate(row.nearest)}
        for row, left, right in zip(table, lefts, rights, strict=True)
    ]
    nearest = alt.selection_point(name="near", on="pointerover", clear="pointerout", fields=["x"], empty=False)
    tooltip = [alt.Tooltip("t:N", title=columns[0])]
    tooltip += [alt.Tooltip(f"r{number}:N", title=_tooltip_title(label)) for number, label in enumerate(columns[1:])]
    base = alt.Chart(alt.NamedData(name=NEAREST)).transform_filter("datum.step >= first")
    rule = base.mark_rule(aria=False).encode(x="x:Q", opacity=alt.condition(nearest, alt.value(0.6), alt.value(0)))
    areas = base.transform_calculate(start="max(datum.left, first)").mark_rect(aria=False, opacity=0)
    areas = areas.encode(x="start:Q", x2="right:Q", tooltip=tooltip)
    return values, [rule, areas.add_params(nearest)]


def _tooltip_title(name: str) -> str:
    """Replace characters that Vega does not escape in expressions."""
    return "".join(char if char.isprintable() and char not in '"\\' else "\N{REPLACEMENT CHARACTER}" for char in name)


def layered(layers: Sequence[alt.Chart]) -> alt.LayerChart:
    """Combine layers into a chart. The page's controls set `first`, a step, and `hidden`, a list of run numbers."""
    first, hidden = alt.param(name="first", value=0), alt.param(name="hidden", value=[])
    chart: alt.LayerChart = alt.layer(*layers).properties(height=250).add_params(first, hidden)
    chart = chart.resolve_scale(strokeDash="independent")  # those of the runs and of the baselines
    return chart


def scale_of_single(values: Sequence[float], unit: str) -> alt.Scale:
    """Return the scale of values of which each run has one at most: their differences alone would fill its height."""
    low, high = min(values), max(values)
    span = _SINGLE_SPAN_DB if unit == "dB" else _SINGLE_SPAN * max(abs(low), abs(high))
    margin = (span - (high - low)) / 2
    if margin <= 0:
        return alt.Scale(zero=False)
    return alt.Scale(zero=False, domain=[low - margin, high + margin], nice=True)


def range_text(first: int, last: int) -> str:
    return f"{last:,}" if first == last else f"{first:,}\N{EN DASH}{last:,}"
