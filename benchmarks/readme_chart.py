"""The chart of README.md: rates of this project and of what is commonly used instead, from results/stream.json.

python -m benchmarks.readme_chart      # docs/images/patches.svg
"""

import json
from typing import Any

import altair as alt

from benchmarks.common import REPOSITORY
from benchmarks.stream_plot import COPIED, OURS, PEER, UNTOUCHED

CHART = REPOSITORY / "docs" / "images" / "patches.svg"
_RESULTS = REPOSITORY / "benchmarks" / "results" / "stream.json"

# Difference in patches per second from which both bars can be told apart.
_VISIBLE = 5_000

# Name in the chart and case of results/stream.json. The cases deliver the same pairs of patches.
CASES = (
    ("sr-shards", "ours npy, up, 2 workers"),
    ("FFCV", "FFCV raw"),
    ("sr-shards, compressed (tlc)", "ours tlc, up, 2 workers"),
    ("PyTorch DataLoader, mapped arrays", "PyTorch, samples"),
    ("LMDB of raw pixels", "LMDB raw"),
    ("WebDataset of raw pixels", "WebDataset raw"),
    ("JPEG photos, downscaled on the fly", "online"),
    ("LMDB of PNG images", "LMDB PNG"),
    ("PNG files", "loose PNG"),
)


def chart_of(cases: dict[str, Any]) -> alt.LayerChart:
    """Return the chart: a light bar per case for batches left untouched, a dark one within it for batches copied."""
    rows = []
    for name, case in CASES:
        rates = cases[case]["patches_per_second"]
        untouched, copied = (rates[touch]["median"] for touch in ("untouched", "copied"))
        text = f"{untouched:,.0f}" + (f"; copied: {copied:,.0f}" if abs(untouched - copied) > _VISIBLE else "")
        rows.append(
            {"name": name, "untouched": untouched, "copied": copied, "text": text, "ours": case.startswith("ours")}
        )
    axis = alt.Axis(labelLimit=320, labelFontSize=13, ticks=False, domain=False)
    name_axis = alt.Y("name:N", sort=[name for name, _ in CASES], title=None, axis=axis)
    data = alt.Chart({"values": rows})
    layers = []
    for field, shade in (("untouched", UNTOUCHED), ("copied", COPIED)):
        colour = alt.condition("datum.ours", alt.value(shade[OURS]), alt.value(shade[PEER]))
        layers.append(data.mark_bar(height=16).encode(alt.X(f"{field}:Q", axis=None), name_axis, color=colour))
    labels = data.mark_text(align="left", dx=6, fontSize=13)
    layers.append(labels.encode(alt.X("untouched:Q", axis=None), name_axis, alt.Text("text:N")))
    title = alt.TitleParams(
        "Training pairs per second (192 px patches) that reach the training process",
        subtitle="2 CPU cores, 2 data workers, 400 photos, median of 3 rounds; dark: it also copies each batch",
        anchor="start",
        fontSize=15,
        subtitleFontSize=13,
    )
    padding = {"left": 40, "top": 8, "right": 160, "bottom": 8}  # fonts differ in width
    layered = alt.layer(*layers).properties(title=title, width=430, padding=padding)
    chart: alt.LayerChart = layered.configure_view(stroke=None)
    return chart


def main() -> None:
    """Draw the chart from the results."""
    chart_of(json.loads(_RESULTS.read_text())["cases"]).save(CHART)


if __name__ == "__main__":
    main()
