"""The plots of a scale and of the last run."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from shardgen.report.contents import Contents
from shardgen.report.survey import Measured
from shardgen.report.text import distinct
from srshards.page.plots import SERIES_COLOURS, Plot
from srshards.terminal.text import plural

MAX_CLASSES_DRAWN = 30
MAX_CLASSES_LISTED = 400
_BINS = 36
_HEIGHT = 220
_ROW_PX, _AXIS_PX = 22, 60
_ALL_LABELS = alt.Axis(labelOverlap=False)  # do not drop labels


def class_plot(contents: Contents) -> Plot:
    """Return bars of samples per class, largest first; the smallest of many classes share one bar."""
    ordered = sorted(contents.classes.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    shown, others = ordered[:MAX_CLASSES_DRAWN], ordered[MAX_CLASSES_DRAWN:]
    names = distinct((name for name, _ in ordered), 40)
    bars = [(name, counts) for name, (_, counts) in zip(names, shown, strict=False)]
    if others:
        rest = {split: sum(counts[split] for _, counts in others) for split in contents.of_split}
        bars.append((f"{len(others):,} more", rest))
    values = [
        {"class": name, "split": split, "samples": count} for name, counts in bars for split, count in counts.items()
    ]
    chart = (
        _chart(values)
        .mark_bar()
        .encode(
            x=alt.X("samples:Q", title="samples", axis=alt.Axis(tickMinStep=1, tickCount=5, format=",d")),
            y=alt.Y("class:N", sort=[name for name, _ in bars], title=None, axis=_ALL_LABELS),
            color=alt.Color("split:N", scale=_scale("train", "val")),
            tooltip=["class:N", "split:N", alt.Tooltip("samples:Q", format=",")],
        )
        .properties(height=_rows_px(bars))
    )
    rows = [
        (name, *(f"{count:,}" for count in counts.values()))
        for name, (_, counts) in zip(names, ordered[:MAX_CLASSES_LISTED], strict=False)
    ]
    if len(ordered) > MAX_CLASSES_LISTED:
        rows.append((f"{len(ordered) - MAX_CLASSES_LISTED:,} more classes are in the manifest", "", ""))
    drawn = f" The {MAX_CLASSES_DRAWN} largest of {len(ordered):,} classes." if others else ""
    return Plot(
        "Samples per class", f"Number of samples per class folder.{drawn}", chart, ("class", "train", "val"), rows
    )


def histogram(
    title: str, what: str, unit: str, values: Sequence[float], colour: int, decimals: int, noun: str = "sample"
) -> Plot:
    """Return a histogram with bins of equal width, at least one unit of the last decimal."""
    least, most, step = min(values), max(values), 10.0**-decimals
    bins = min(max(round((most - least) / step), 1), _BINS)
    counts, edges = np.histogram(values, bins=bins, range=(least, max(most, least + step)))
    rounded = [f"{edge:.{decimals}f}" for edge in edges]
    rows = [
        (f"{low} to {high}", f"{count:,}")
        for low, high, count in zip(rounded[:-1], rounded[1:], counts.tolist(), strict=True)
    ]
    data = [
        {"from": float(low), "to": float(high), "count": int(count), "range": row[0]}
        for low, high, count, row in zip(edges[:-1], edges[1:], counts, rows, strict=True)
    ]
    chart = (
        _chart(data)
        .mark_bar(color=SERIES_COLOURS[colour], binSpacing=1)
        .encode(
            x=alt.X("from:Q", bin="binned", title=unit, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=8)),
            x2="to:Q",
            y=alt.Y("count:Q", title=f"{noun}s", axis=alt.Axis(tickMinStep=1)),
            tooltip=[alt.Tooltip("range:N", title=unit), alt.Tooltip("count:Q", title=f"{noun}s", format=",")],
        )
        .properties(height=_HEIGHT)
    )
    median = f"{np.median(values):.{decimals}f}"
    return Plot(title, f"{what} Median {median} over {plural(len(values), noun)}.", chart, (unit, f"{noun}s"), rows)


def psnr_by_class(samples: Sequence[Measured]) -> Plot:
    """Return a plot of the PSNR of `up` per class: range as a line, middle half as a bar, median as a dot."""
    by_class: dict[str, list[float]] = {}
    for sample in samples:
        if sample.psnr is not None:
            by_class.setdefault(sample.class_name, []).append(sample.psnr)
    largest = sorted(by_class, key=lambda name: (-len(by_class[name]), name))[:MAX_CLASSES_DRAWN]
    largest.sort(key=lambda name: (float(np.median(by_class[name])), name))
    names, columns = distinct(largest, 40), ("min", "25%", "median", "75%", "max")
    percentiles = [np.percentile(by_class[name], (0, 25, 50, 75, 100)) for name in largest]
    data = [
        {"class": label, "samples": len(by_class[name]), **dict(zip(columns, map(float, numbers), strict=True))}
        for label, name, numbers in zip(names, largest, percentiles, strict=True)
    ]
    tooltips = [alt.Tooltip(f"{column}:Q", format=".2f") for column in columns]
    base = _chart(data).encode(
        y=alt.Y("class:N", sort=names, title=None, axis=_ALL_LABELS), tooltip=["class:N", "samples:Q", *tooltips]
    )
    axis = alt.X("min:Q", title="PSNR of up, dB", scale=alt.Scale(zero=False))
    colour = SERIES_COLOURS[0]
    chart = alt.layer(
        base.mark_rule(color=colour).encode(x=axis, x2="max:Q"),
        base.mark_bar(color=colour, height=10).encode(x="25%:Q", x2="75%:Q"),
        base.mark_point(color="var(--ground)", stroke=colour, strokeWidth=2, size=70, opacity=1).encode(x="median:Q"),
    ).properties(height=_rows_px(names))
    rows = [
        (label, str(len(by_class[name])), *(f"{number:.2f}" for number in numbers))
        for label, name, numbers in zip(names, largest, percentiles, strict=True)
    ]
    left_out = len(by_class) - len(largest)
    some = f" The {len(largest)} classes with the most samples of {len(by_class):,}." if left_out else ""
    what = "Hardest first: line from minimum to maximum, bar for the middle half, dot at the median."
    return Plot("PSNR of up by class", what + some, chart, ("class", "samples", *columns), rows)


def stage_plot(seconds: Mapping[str, float]) -> Plot:
    """Return a plot of the last run's worker time (s) per stage."""
    total = sum(seconds.values()) or 1.0
    values: list[dict[str, Any]] = [{"stage": name, "seconds": spent} for name, spent in seconds.items()]
    chart = (
        _chart(values)
        .mark_bar(color=SERIES_COLOURS[2])
        .encode(
            x=alt.X("seconds:Q", title="seconds, sum over all workers"),
            y=alt.Y("stage:N", sort=list(seconds), title=None, axis=_ALL_LABELS),
            tooltip=["stage:N", alt.Tooltip("seconds:Q", format=",.2f")],
        )
        .properties(height=_rows_px(values))
    )
    rows = [(name, f"{spent:,.2f}", f"{100 * spent / total:.0f}%") for name, spent in seconds.items()]
    what = "Time of all workers of the last run, by stage."
    return Plot("Time per stage", what, chart, ("stage", "seconds", "share"), rows)


def _scale(*names: str) -> alt.Scale:
    return alt.Scale(domain=list(names), range=list(SERIES_COLOURS[: len(names)]))


def _chart(values: Sequence[Mapping[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=list(values)))


def _rows_px(rows: Sequence[object]) -> int:
    """Return the height of a plot with these rows, an axis and a legend."""
    return _ROW_PX * len(rows) + _AXIS_PX
