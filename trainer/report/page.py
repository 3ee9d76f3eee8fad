"""Write the HTML page of `report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srshards.errors import RunError
from srshards.format import Address
from srshards.page.render import MAX_PAGE_BYTES, render
from srshards.storage.files import write_atomically, writing
from srshards.terminal.text import plural
from trainer.messages import format_duration
from trainer.metrics_table import METRICS
from trainer.report.charts import style
from trainer.report.curves import plots
from trainer.report.journal_summary import MAIN_SET
from trainer.report.previews import Gallery, gallery
from trainer.report.runs import Run, differing_sets, read_runs, same_bicubic
from trainer.report.tables import NONE, RUN_COLUMNS, best_run, formatted, run_rows, set_table, settings

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
    drawn = _drawn(runs)
    different, equal = settings(drawn)
    best = best_run(runs)
    set_columns, set_rows, best_of_sets = set_table(runs)
    problems = [line for run in runs for line in run.problems]
    return {
        "title": runs[0].label if len(runs) == 1 else f"{len(runs):,} runs",
        "drawn": drawn,
        "not_drawn": [run.label for run in runs if run not in drawn],
        "styles": [style(number) for number in range(len(drawn))],
        "tiles": _tiles(runs, best),
        "notes": _notes(runs),
        "problems": problems[:_MAX_PROBLEMS],
        "more_problems": len(problems[_MAX_PROBLEMS:]),
        "run_columns": RUN_COLUMNS,
        "run_rows": run_rows(runs),
        "best_row": None if best is None or len(runs) == 1 else runs.index(best),
        "set_columns": set_columns,
        "set_rows": set_rows,
        "best_of_sets": dict.fromkeys(best_of_sets, "best"),
        "plots": plots(drawn),
        "max_step": max(run.summary.step for run in drawn),
        "labels": [run.label for run in drawn],
        "different": different,
        "different_marks": dict.fromkeys(range(len(different)), "different"),
        "equal": equal,
    }


def _drawn(runs: Sequence[Run]) -> list[Run]:
    """Return the runs in the given order; if there are too many, those with the highest PSNR-Y."""
    if len(runs) <= MAX_DRAWN:
        return list(runs)
    order = sorted(runs, key=lambda run: -run.summary.best.psnr_y if run.summary.best else 0.0)[:MAX_DRAWN]
    return [run for run in runs if run in order]


def _tiles(runs: Sequence[Run], best: Run | None) -> list[tuple[str, str]]:
    if best is None or best.summary.best is None:
        return [("steps", f"{max(run.summary.step for run in runs):,}"), ("validations", "0")]
    metrics, summary = best.summary.best, best.summary
    return [
        ("best PSNR-Y", formatted(metrics.psnr_y, "{:.2f} dB".format)),
        ("over bicubic", formatted(metrics.gain, "{:+.2f} dB".format)),
        ("SSIM-Y there", formatted(metrics.ssim_y, "{:.4f}".format)),
        ("at step", f"{metrics.step:,}"),
        ("patches/s, median", formatted(summary.patches_per_s, "{:,.1f}".format)),
        ("waiting for data", formatted(summary.data_wait, "{:.2%}".format)),
        ("training time", format_duration(summary.trained_s)),
    ]


def _notes(runs: Sequence[Run]) -> list[str]:
    """Return caveats for comparing the runs, errors that ended them, damaged samples, and collapsing discriminators."""
    notes = []
    scales = sorted({run.scale for run in runs if run.scale})
    if len(scales) > 1:
        times = ", ".join(f"{scale}\N{MULTIPLICATION SIGN}" for scale in scales)
        notes.append(f"These runs have different scales ({times}), so their PSNRs are not comparable.")
    if not same_bicubic(runs):
        notes.append("These runs were validated on different images: the PSNR of bicubic differs. Compare the gains.")
    mains = {next(iter(run.summary.sets), MAIN_SET) for run in runs}
    if others := [name for name in differing_sets(runs) if name not in mains]:
        notes.append(
            f"The runs have different images of {', '.join(others)}: the PSNR of bicubic differs. Compare the gains."
        )
    unvalidated = [run.label for run in runs if not run.summary.num_validations]
    if unvalidated:
        notes.append(f"Not validated yet: {', '.join(unvalidated)}.")
    unaccounted = [run.label for run in runs if not run.summary.account]
    if unaccounted:
        notes.append(
            f"No account of the wall-clock time: {', '.join(unaccounted)}. A run writes it at each "
            "save; runs of earlier versions have none."
        )
    notes += [line for run in runs if (line := _other_choice(run))]
    for run in runs:
        if run.summary.error is not None:
            notes.append(f"{run.label} ended with an error: {run.summary.error or NONE}")
        if run.summary.damaged:
            num = len(run.summary.damaged)
            samples = "1 damaged sample was" if num == 1 else f"{num:,} damaged samples were"
            notes.append(f"{run.label}: {samples} replaced by others.")
        notes += [f"{run.label}, step {step:,}: {message or NONE}." for step, message in run.summary.collapses]
        if more := run.summary.num_collapses - len(run.summary.collapses):
            notes.append(f"{run.label}: {plural(more, 'further warning')} of a collapse.")
    return notes


def _other_choice(run: Run) -> str:
    """Return what the run's `best.pth` is chosen by, unless it is PSNR-Y of the validation split."""
    metric, _, name = str(run.plan.get("best_by", "")).partition("@")
    if metric not in METRICS or (metric, name) == ("psnr_y", MAIN_SET):
        return ""
    best = run.summary.of_set(name).best.get(metric)
    value = f": {METRICS[metric].formatted(best.value)} at step {best.step:,}" if best else ""
    return f"{run.label}: best.pth is chosen by {METRICS[metric].label} on {name}{value}."
