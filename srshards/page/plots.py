"""Plots specified with Vega-Altair and drawn by Vega in the page, as SVG in the page's light or dark colours.

Each plot comes with a table of its values, for accessibility.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import vl_convert

# Colours of lines and bars, defined in page.css; distinguishable with any colour vision, and by dashes.
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
    """A plot with a description and a table of its values (`columns` and `rows`).

    `datasets` has the values of the chart's named datasets (`alt.NamedData`). They are not passed through Altair, which
    would take seconds to validate them.
    """

    title: str
    description: str  # what it shows, in a sentence or two
    chart: alt.TopLevelMixin
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    wide: bool = field(default=False)  # spans the width of the page
    datasets: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        """Return the Vega-Lite specification, as wide as its container."""
        spec: dict[str, Any] = self.chart.to_dict()
        spec.setdefault("width", "container")
        if self.datasets:
            spec["datasets"] = {**spec.get("datasets", {}), **self.datasets}
        return {**spec, "autosize": {"type": "fit", "contains": "padding"}, "config": _THEME}


@functools.cache
def plotting_library() -> str:
    """Return the JavaScript of Vega, Vega-Lite and Vega-Embed, 0.9 MB, from the installed package."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
