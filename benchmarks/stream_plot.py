"""Chart of the rates of all cases on a logarithmic scale, this project's cases in colour."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt

OURS, PEER = "this project", "others"
UNTOUCHED = {OURS: "#9cc7fa", PEER: "#cfd5db"}
COPIED = {OURS: "#0f6fde", PEER: "#8a939d"}
_MEANING = {"untouched": "batch left untouched", "copied": "copied by the training process"}


class Bar(NamedTuple):
    """Medians of a case in patches per second; `copied` is None when that was not measured."""

    name: str
    untouched: float
    copied: float | None
    is_ours: bool


def bars_of(cases: Mapping[str, Any]) -> list[Bar]:
    """Return bars, fastest first, of this project's cases with 2 workers and 192 px and of all peers measured."""
    bars = []
    for name, found in cases.items():
        is_ours = name.startswith("ours ")
        if "unavailable" in found or (is_ours and (found["workers"] != 2 or found["patch_px"] != 192)):
            continue
        rates = found["patches_per_second"]
        copied = rates["copied"]["median"] if "copied" in rates else None
        label = name.replace(", 2 workers", "").replace("ours ", "this project: ") if is_ours else name
        bars.append(Bar(label, rates["untouched"]["median"], copied, is_ours))
    return sorted(bars, key=lambda bar: bar.untouched, reverse=True)


def draw_rates(path: Path, cases: Mapping[str, Any]) -> None:
    """Write the chart as PNG: a light bar for batches left untouched, a dark one within it for batches copied."""
    bars = bars_of(cases)
    if not bars:
        raise ValueError("no rate to draw")
    low = 10.0 ** math.floor(math.log10(min(bar.copied or bar.untouched for bar in bars)))
    rate = alt.X(
        "rate:Q",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(values=[10**power for power in range(7)], format=","),
        title="patches/s",
    )
    name = alt.Y("name:N", sort=[bar.name for bar in bars], title=None, axis=alt.Axis(labelLimit=300))
    layers = []
    for field, colours in (("untouched", UNTOUCHED), ("copied", COPIED)):
        rows = [
            {"name": bar.name, "rate": median, "low": low, "side": OURS if bar.is_ours else PEER}
            for bar in bars
            if (median := getattr(bar, field))
        ]
        colour = alt.Color(
            "side:N", scale=alt.Scale(domain=list(colours), range=list(colours.values())), title=_MEANING[field]
        )
        layers.append(alt.Chart({"values": rows}).mark_bar(height=14).encode(rate, name, alt.X2("low:Q"), colour))
    figures = [{"name": bar.name, "rate": max(bar.untouched, bar.copied or 0), "text": _text(bar)} for bar in bars]
    text = alt.Chart({"values": figures}).mark_text(align="left", dx=6).encode(rate, name, alt.Text("text:N"))
    title = alt.TitleParams(
        "Patches per second that reach the training process",
        subtitle="batches of 16 pairs of 192 px patches, 2 workers, page cache warm, medians",
        anchor="start",
    )
    chart = alt.layer(*layers, text).resolve_scale(color="independent").properties(title=title, width=600)
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.save(path, scale_factor=1.5)


def _text(bar: Bar) -> str:
    return f"{bar.untouched:,.0f}" + (f" / {bar.copied:,.0f}" if bar.copied else "")
