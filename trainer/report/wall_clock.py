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
_BAR_PX, _AXES_PX = 30, 80


def wall_clock(runs: Sequence[Run]) -> Plot | None:
    """Return a stacked bar for each run whose journal has an account; None if there is none."""
    accounts = [(number, run, run.summary.account) for number, run in enumerate(runs) if run.summary.account]
    if not accounts:
        return None
    values, rows = [], []
    for number, run, account in accounts:
        total_s = sum(account.values())
        row = [run.label, format_duration(total_s)]
        for order, (key, name) in enumerate(PHASE_NAMES.items()):
            share, time = account[key] / total_s, f"{account[key]:,.1f} s"
            values.append(
                {"run": number, "label": run.label, "phase": name, "order": order, "share": round(share, 6)}
                | {"text": f"{share:.2%}", "time": time}
            )
            row.append(f"{share:.2%}")
        rows.append([*row, formatted(run.summary.steps_share, "{:.2%}".format)])
    base = alt.Chart(alt.NamedData(name=_SHARES)).transform_filter("datum.share > 0 && indexof(hidden, datum.run) < 0")
    bars = base.mark_bar(stroke="var(--ground)", strokeWidth=1).encode(
        x=alt.X(
            "share:Q", title="share of the wall-clock time", axis=alt.Axis(format="%"), scale=alt.Scale(nice=False)
        ),
        y=alt.Y("label:N", title=None, sort=[run.label for _, run, _ in accounts], axis=alt.Axis(labelOverlap=False)),
        color=alt.Color(
            "phase:N",
            scale=alt.Scale(domain=list(PHASE_NAMES.values()), range=_COLOURS),
            legend=alt.Legend(columns=2, symbolStrokeWidth=0),  # narrow enough for phones
        ),
        order="order:Q",
        tooltip=[alt.Tooltip(f"{field}:N", title=title) for field, title in _TOOLTIP.items()],
    )
    chart = layered([bars]).properties(height=_AXES_PX + _BAR_PX * len(accounts))
    columns = ("Run", "Wall clock", *(name.capitalize() for name in PHASE_NAMES.values()), "Steps, first to last")
    return Plot("Wall-clock time", _DESCRIPTION, chart, columns, rows, wide=True, datasets={_SHARES: values})
