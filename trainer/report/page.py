"""Write the HTML page of `report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srshards.errors import RunError
from srshards.format import Address
from srshards.page.render import MAX_PAGE_BYTES, render
from srshards.storage.files import write_atomically, writing
from trainer.messages import format_duration
from trainer.report.charts import style
from trainer.report.curves import plots
from trainer.report.notes import remarks, warnings
from trainer.report.previews import Gallery, gallery
from trainer.report.ranking import SHORT_SHARE, divided, ranked
from trainer.report.runs import Run, read_runs
from trainer.report.tables import DETAIL_COLUMNS, RUN_COLUMNS, detail_row, formatted, run_row, set_table, settings
from trainer.report.verdict import verdict

MAX_DRAWN = 24  # runs with curves, previews and settings; the table of results has all
_POINTS = 4000  # of all lines of a plot together
_SPARE_BYTES = 50_000  # for the list of omitted images
_MAX_PROBLEMS = 40  # lines


@dataclass(frozen=True)
class WrittenReport:
    """The written page and the labels of its runs."""

    path: Path
    num_bytes: int
    labels: list[str]


def write_report(addresses: Sequence[Address], output: Path) -> WrittenReport:
    """Write one page about runs. UsageError for a folder that is not a run, RunError if the page cannot be written."""
    max_points = min(400, max(60, _POINTS // min(len(addresses), MAX_DRAWN)))
    runs = read_runs(addresses, max_points)
    values = _values(runs)
    page = _rendered(values, Gallery())
    if any(run.previews for run in runs):
        budget_bytes = max(0, MAX_PAGE_BYTES - len(page) - _SPARE_BYTES)
        page = _rendered(values, gallery(values["drawn"], budget_bytes))
    if len(page) > MAX_PAGE_BYTES:
        raise RunError(f"a page of {len(runs):,} runs would be too large; pass fewer runs")
    with writing(output):
        write_atomically(output, page)
    return WrittenReport(output, len(page), [run.label for run in runs])


def _rendered(values: dict[str, Any], shown: Gallery) -> bytes:
    shots = {figure: of_figure for scene in shown.scenes for figure, of_figure in scene.shots_by_figure().items()}
    return render("trainer.report", "runs.html", gallery=shown, shots=shots, **values)


def _values(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the template's values, except the previews."""
    order = ranked(runs)
    compared, short = divided(order)
    drawn = compared[:MAX_DRAWN]
    different, equal = settings(drawn)
    best = order[0] if order[0].summary.best else None
    set_columns, set_rows, best_of_sets = set_table(order)
    problems = [line for run in order for line in run.problems]
    found = warnings(order)
    return {
        "title": runs[0].label if len(runs) == 1 else f"{len(runs):,} runs",
        "runs": order,
        "drawn": drawn,
        "not_drawn": [run.name for run in compared[MAX_DRAWN:]],
        "styles": [style(number) for number in range(len(drawn))],
        "verdict": verdict(order, len(found) + len(problems)),
        "tiles": _tiles(best) if best else [],
        "warnings": found,
        "remarks": remarks(order),
        "problems": problems[:_MAX_PROBLEMS],
        "more_problems": len(problems[_MAX_PROBLEMS:]),
        "run_columns": RUN_COLUMNS,
        "run_rows": [run_row(run) for run in compared],
        "short_rows": [run_row(run) for run in short],
        "short_share": SHORT_SHARE,
        "detail_columns": DETAIL_COLUMNS,
        "detail_rows": [detail_row(run) for run in order],
        "has_best": best is not None,
        "set_columns": set_columns,
        "set_rows": set_rows,
        "best_of_sets": dict.fromkeys(best_of_sets, "best"),
        "plots": plots(drawn),
        "max_step": max(run.summary.step for run in drawn),
        "names": [run.name for run in drawn],
        "different": different,
        "equal": equal,
    }


def _tiles(best: Run) -> list[tuple[str, str]]:
    metrics, summary = best.summary.best, best.summary
    return [
        ("best PSNR-Y", formatted(metrics and metrics.psnr_y, "{:.2f} dB".format)),
        ("over bicubic", formatted(metrics and metrics.gain, "{:+.2f} dB".format)),
        ("waiting for data", formatted(summary.data_wait, "{:.2%}".format)),
        ("training time", format_duration(summary.trained_s)),
    ]
