"""Plots by Vega-Altair, drawn by Vega in the page: SVG in the page's own colours, light or dark.

What a plot shows stands beside it as a table, for whoever cannot see it or wants the figures.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import vl_convert

# Colours of lines and bars, defined for light and dark in page.css; told apart with any colour vision, and by dashes.
SERIES_COLOURS = tuple(f"var(--series-{number})" for number in range(1, 9))
SERIES_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3], [4, 4], [1, 3], [10, 2, 2, 2, 2, 2])
_THEME = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "axis": {
        "labelColor": "var(--text)",
        "titleColor": "var(--text)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelOverlap": "greedy",
        "labelLimit": 140,
    },
    "header": {"labelColor": "var(--text)", "titleColor": "var(--text)"},
    "legend": {
        "labelColor": "var(--text)",
        "titleColor": "var(--text)",
        "labelFontSize": 12,
        "labelLimit": 260,
        "orient": "top",
        "title": None,
        "symbolStrokeWidth": 3,
    },
    "view": {"stroke": "transparent"},
    "range": {"category": list(SERIES_COLOURS)},
    "bar": {"color": SERIES_COLOURS[0]},
    "line": {"color": SERIES_COLOURS[0], "strokeWidth": 2},
    "point": {"color": SERIES_COLOURS[0], "filled": True},
    "rule": {"color": "var(--text)"},
    "text": {"color": "var(--text)", "fontSize": 12},
}


@dataclass(frozen=True)
class Plot:
    """A plot, in words and figures too: `columns` and `rows` are those of the table beneath it.

    `datasets` has the values of those that the chart names (`alt.NamedData`): Altair takes seconds to check thousands.
    """

    title: str
    description: str  # what it shows, in a sentence or two
    chart: alt.TopLevelMixin
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    wide: bool = field(default=False)  # takes a line of the page for itself
    datasets: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        """Vega-Lite, as wide as the page lets it be."""
        spec: dict[str, Any] = self.chart.to_dict()
        spec.setdefault("width", "container")
        if self.datasets:
            spec["datasets"] = {**spec.get("datasets", {}), **self.datasets}
        return {**spec, "autosize": {"type": "fit", "contains": "padding"}, "config": _THEME}


@functools.cache
def plotting_library() -> str:
    """The JavaScript that draws plots (Vega, Vega-Lite and Vega-Embed), 0.9 MB, from the installed package."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
