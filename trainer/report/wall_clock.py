"""The plot of how each run's wall-clock time divided."""

from collections.abc import Sequence

import altair as alt

from srshards.page.plots import SERIES_COLOURS, Plot
from trainer.messages import format_duration
from trainer.report.charts import layered
from trainer.report.runs import Run
from trainer.report.tables import formatted
from trainer.training.account import PHASE_NAMES

_SHARES = "shares"  # name of the chart's dataset
_COLOURS = [*SERIES_COLOURS[: len(PHASE_NAMES) - 1], SERIES_COLOURS[-1]]  # grey for the rest
_TOOLTIP = {"label": "Run", "phase": "Time for", "text": "Share", "time": "Duration"}
_DESCRIPTION = "From the start of the command on, including the time before a run was resumed."
_ROW_PX, _AXES_PX = 48, 104  # a row has the name of a run above its bar; the axes include three lines of legend


def wall_clock(runs: Sequence[Run]) -> Plot | None:
    """Return a stacked bar for each run whose journal has an account; None if there is none."""
    accounts = [(number, run, run.summary.account) for number, run in enumerate(runs) if run.summary.account]
    if not accounts:
        return None
    values, rows = [], []
    for number, run, account in accounts:
        total_s = sum(account.values())
        row = [run.name, format_duration(total_s)]
        for order, (key, name) in enumerate(PHASE_NAMES.items()):
            share, time = account[key] / total_s, f"{account[key]:,.1f} s"
            values.append(
                {"run": number, "label": run.short, "phase": name, "order": order, "share": round(share, 6)}
                | {"text": f"{share:.2%}", "time": time}
            )
            row.append(f"{share:.2%}")
        rows.append([*row, formatted(run.summary.steps_share, "{:.2%}".format)])
    names, scale = [run.short for _, run, _ in accounts], alt.Scale(padding=0)
    middle, top = (alt.Y("label:N", sort=names, axis=None, scale=scale, bandPosition=at) for at in (0.5, 0))
    base = alt.Chart(alt.NamedData(name=_SHARES)).transform_filter("datum.share > 0 && indexof(hidden, datum.run) < 0")
    bars = base.mark_bar(stroke="var(--ground)", strokeWidth=1, height=18).encode(
        x=alt.X(
            "share:Q",
            title="share of the wall-clock time",
            axis=alt.Axis(format="%", tickCount=5),
            scale=alt.Scale(domain=[0, 1], clamp=True),  # the sum of rounded shares is not exactly 1
        ),
        y=middle,
        color=alt.Color(
            "phase:N",
            scale=alt.Scale(domain=list(PHASE_NAMES.values()), range=_COLOURS),
            legend=alt.Legend(columns=2, symbolStrokeWidth=0),  # narrow enough for phones
        ),
        order="order:Q",
        tooltip=[alt.Tooltip(f"{field}:N", title=title) for field, title in _TOOLTIP.items()],
    )
    # The names are above the bars, as beside them they would leave little of the width of a phone.
    first = base.transform_filter("datum.order == 0")
    text = first.mark_text(align="left", baseline="top").encode(x=alt.value(0), y=top, text="label:N")
    chart = layered([bars, text]).properties(height=_AXES_PX + _ROW_PX * len(accounts))
    columns = ("Run", "Wall clock", *(name.capitalize() for name in PHASE_NAMES.values()), "Steps, first to last")
    return Plot("Wall-clock time", _DESCRIPTION, chart, columns, rows, wide=True, datasets={_SHARES: values})
