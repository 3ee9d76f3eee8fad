"""The page that `report` writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srshards.errors import RunError
from srshards.format import Address
from srshards.page.render import MAX_PAGE_BYTES, render
from srshards.storage.files import write_atomically, writing
from trainer.report.charts import style
from trainer.report.curves import plots
from trainer.report.previews import Gallery, gallery
from trainer.report.runs import Run, read_runs, same_bicubic
from trainer.report.tables import NONE, RUN_COLUMNS, best_run, duration, run_rows, settings, written

MAX_DRAWN = 24  # runs; of more, the table alone tells
_POINTS = 4000  # of all lines of a plot
_SPARE_BYTES = 50_000  # for what is said of images that are left out
_MAX_TROUBLE = 40  # lines


@dataclass(frozen=True)
class WrittenReport:
    """A page that was written, with the labels of the runs in it."""

    path: Path
    num_bytes: int
    labels: list[str]


def write_report(addresses: Sequence[Address], output: Path) -> WrittenReport:
    """One page about runs. UsageError for a folder that is no run, RunError when the page cannot be written."""
    most = min(400, max(60, _POINTS // min(len(addresses), MAX_DRAWN)))
    runs = read_runs(addresses, most)
    values = _values(runs)
    page = _rendered(values, Gallery())
    if any(run.previews for run in runs):
        room = MAX_PAGE_BYTES - len(page) - _SPARE_BYTES
        page = _rendered(values, gallery(values["drawn"], max(0, room)))
    if len(page) > MAX_PAGE_BYTES:
        raise RunError(f"a page of {len(runs):,} runs would be too large; name fewer of them")
    with writing(output):
        write_atomically(output, page)
    return WrittenReport(output, len(page), [run.label for run in runs])


def _rendered(values: dict[str, Any], shown: Gallery) -> bytes:
    later = {name: shots for scene in shown.scenes for name, shots in scene.later().items()}
    return render("trainer.report", "runs.html", gallery=shown, later=later, **values)


def _values(runs: Sequence[Run]) -> dict[str, Any]:
    """All that the template shows but the previews."""
    drawn = _drawn(runs)
    different, equal = settings(drawn)
    best = best_run(runs)
    trouble = [line for run in runs for line in run.trouble]
    return {
        "title": runs[0].label if len(runs) == 1 else f"{len(runs):,} runs",
        "drawn": drawn,
        "not_drawn": [run.label for run in runs if run not in drawn],
        "styles": [style(number) for number in range(len(drawn))],
        "tiles": _tiles(runs, best),
        "notes": _notes(runs),
        "trouble": trouble[:_MAX_TROUBLE],
        "more_trouble": len(trouble[_MAX_TROUBLE:]),
        "run_columns": RUN_COLUMNS,
        "run_rows": run_rows(runs),
        "best_row": None if best is None or len(runs) == 1 else runs.index(best),
        "plots": plots(drawn),
        "max_step": max(run.summary.step for run in drawn),
        "labels": [run.label for run in drawn],
        "different": different,
        "different_marks": dict.fromkeys(range(len(different)), "different"),
        "equal": equal,
    }


def _drawn(runs: Sequence[Run]) -> list[Run]:
    """Those with the highest PSNR-Y if there are too many, in the order given."""
    if len(runs) <= MAX_DRAWN:
        return list(runs)
    order = sorted(runs, key=lambda run: -run.summary.best.psnr_y if run.summary.best else 0.0)[:MAX_DRAWN]
    return [run for run in runs if run in order]


def _tiles(runs: Sequence[Run], best: Run | None) -> list[tuple[str, str]]:
    if best is None or best.summary.best is None:
        return [("steps", f"{max(run.summary.step for run in runs):,}"), ("validations", "0")]
    figures, summary = best.summary.best, best.summary
    return [
        ("best PSNR-Y", written(figures.psnr_y, "{:.2f} dB".format)),
        ("over bicubic", written(figures.gain, "{:+.2f} dB".format)),
        ("SSIM-Y there", written(figures.ssim_y, "{:.4f}".format)),
        ("at step", f"{figures.step:,}"),
        ("patches/s, median", written(summary.patches_per_s, "{:,.1f}".format)),
        ("waiting for data", written(summary.data_wait, "{:.2%}".format)),
        ("training time", duration(summary.trained_s)),
    ]


def _notes(runs: Sequence[Run]) -> list[str]:
    """What has to be known before figures of several runs are compared."""
    notes = []
    scales = sorted({run.scale for run in runs if run.scale})
    if len(scales) > 1:
        times = ", ".join(f"{scale}\N{MULTIPLICATION SIGN}" for scale in scales)
        notes.append(f"These runs are of different scales ({times}): PSNRs of different scales cannot be compared.")
    if not same_bicubic(runs):
        notes.append("Bicubic's figures differ: these runs were not judged on the same images. Compare the gains.")
    unseen = [run.label for run in runs if not run.summary.num_validations]
    if unseen:
        notes.append(f"Nothing was validated yet in: {', '.join(unseen)}.")
    for run in runs:
        if run.summary.error is not None:
            notes.append(f"{run.label} ended by an error: {run.summary.error or NONE}")
        if run.summary.damaged:
            num = len(run.summary.damaged)
            what = "1 damaged sample was" if num == 1 else f"{num:,} damaged samples were"
            notes.append(f"{run.label}: {what} replaced by others.")
    return notes
