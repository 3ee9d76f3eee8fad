"""Vega layers over the steps or the time of training: a line for each run, told apart by colour and dashes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import altair as alt

from srshards.page.plots import SERIES_COLOURS, SERIES_DASHES

LINES, ACROSS, NEAR = "lines", "across", "near"  # the names of the charts' datasets
STEPS = alt.Axis(
    labelExpr="format(datum.value, datum.value < 1e5 ? ',' : '~s')", tickMinStep=1, tickCount=8, labelOverlap="parity"
)
_FEW = 40  # points of a line that are shown as points too
_NAME_CHARS = 24  # beside the pointer
_DRAWN = "datum.step >= first && indexof(hidden, datum.run) < 0"


class Row(NamedTuple):
    """What the runs had in a stretch of steps; `near` has what was nearest to it instead of nothing."""

    first: int
    last: int
    here: list[str]
    near: list[str]


def style(number: int) -> tuple[str, list[int]]:
    """Colour and dashes of the run with this number. The first 64 are all different."""
    turn, colour = divmod(number, len(SERIES_COLOURS))
    return SERIES_COLOURS[colour], SERIES_DASHES[(colour + turn) % len(SERIES_DASHES)]


def line_layers(
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
    base = alt.Chart(alt.NamedData(name=LINES)).transform_filter(_DRAWN)
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


def across_layers(lines: Sequence[dict[str, Any]]) -> list[alt.Chart]:
    """Lines across the plot, if there are any."""
    if not lines:
        return []
    base = alt.Chart(alt.NamedData(name=ACROSS))
    y = alt.Y("y:Q")
    text = base.mark_text(align="right", dy=-7, fontSize=12).encode(y=y, x=alt.value("width"), text="name:N")
    return [base.mark_rule(strokeDash=[2, 3], opacity=0.8).encode(y=y), text]


def hover_layers(columns: Sequence[str], table: Sequence[Row]) -> tuple[list[dict[str, Any]], list[alt.Chart]]:
    """What all runs have at the step that is nearest to the pointer, and a line there."""
    at = [row.last for row in table]
    middles = [(one + other) / 2 for one, other in pairwise(at)]
    lefts, rights = [at[0] if middles else at[0] - 0.5, *middles], [*middles, at[-1] if middles else at[0] + 0.5]
    values = [
        {"x": row.last, "left": left, "right": right, "step": row.last, "t": stretch_text(row.first, row.last)}
        | {f"r{number}": text for number, text in enumerate(row.near)}
        for row, left, right in zip(table, lefts, rights, strict=True)
    ]
    near = alt.selection_point(name="near", on="pointerover", clear="pointerout", fields=["x"], empty=False)
    tooltip = [alt.Tooltip("t:N", title=columns[0])]
    tooltip += [alt.Tooltip(f"r{number}:N", title=_plain(label)) for number, label in enumerate(columns[1:])]
    base = alt.Chart(alt.NamedData(name=NEAR)).transform_filter("datum.step >= first")
    rule = base.mark_rule(aria=False).encode(x="x:Q", opacity=alt.condition(near, alt.value(0.6), alt.value(0)))
    areas = base.mark_rect(aria=False, opacity=0).encode(x="left:Q", x2="right:Q", tooltip=tooltip)
    return values, [rule, areas.add_params(near)]


def _plain(label: str) -> str:
    """A name as Vega can have it in an expression, which it does not quote in full; two dozen have to fit a phone."""
    if len(label) > _NAME_CHARS:
        label = f"{label[: _NAME_CHARS // 3]}…{label[-(_NAME_CHARS * 2 // 3 - 1) :]}"
    return "".join(char if char.isprintable() and char not in '"\\' else "\N{REPLACEMENT CHARACTER}" for char in label)


def layered(layers: Sequence[alt.Chart]) -> alt.LayerChart:
    """The page's controls set `first`, a step, and `hidden`, the numbers of runs that are not to be drawn."""
    first, hidden = alt.param(name="first", value=0), alt.param(name="hidden", value=[])
    chart: alt.LayerChart = alt.layer(*layers).properties(height=250).add_params(first, hidden)
    return chart


def stretch_text(first: int, last: int) -> str:
    return f"{last:,}" if first == last else f"{first:,}\N{EN DASH}{last:,}"
