"""The tables of the page: results and settings of the runs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from trainer.messages import format_duration
from trainer.metrics_table import METRICS, PERCEPTUAL
from trainer.report.journal_summary import SetSummary
from trainer.report.runs import Run, differing_sets

NONE = "\N{EN DASH}"
DIFFERENT = "\N{NOT EQUAL TO}"
MARKED = Markup("<mark>{}</mark>")
RUN_COLUMNS = ("Run", "Best PSNR-Y", "Over bicubic", "SSIM-Y", "Model", "Training time", "State", "Steps", "Data wait")
DETAIL_COLUMNS = ("Run", "Best at step", "Last PSNR-Y", "Last loss", "Patches/s", "Last written", "Folder")
_MAX_CHARS = 200  # of a setting
_PLANNED = {  # keys of plan.json and their names in the table of settings
    "steps": "total steps",
    "patches_per_step": "patches per step",
    "scale": "scale",
    "parameters": "parameters",
    "device": "device used",
    "precision": "precision",
}


def formatted(value: float | None, form: Callable[[float], str]) -> str:
    """Return the formatted value, or a dash for None and NaN."""
    return NONE if value is None or math.isnan(value) else form(value)


def run_row(run: Run) -> list[str]:
    """Return the values of RUN_COLUMNS."""
    summary, best = run.summary, run.summary.best
    planned = f" of {run.planned:,}" if run.planned else ""
    return [
        run.name,
        formatted(best and best.psnr_y, "{:.2f} dB".format),
        formatted(best and best.gain, "{:+.2f} dB".format),
        formatted(best and best.ssim_y, "{:.4f}".format),
        _text(run.plan.get("model", run.settings.get("model", NONE))),
        format_duration(summary.trained_s),
        run.state,
        f"{summary.step:,}{planned}",
        formatted(summary.data_wait, "{:.2%}".format),
    ]


def detail_row(run: Run) -> list[str]:
    """Return the values of DETAIL_COLUMNS."""
    summary = run.summary
    return [
        run.name,
        f"{summary.best.step:,}" if summary.best else NONE,
        formatted(summary.last and summary.last.psnr_y, "{:.2f} dB".format),
        formatted(summary.loss, "{:.5f}".format),
        formatted(summary.patches_per_s, "{:,.1f}".format),
        f"{run.written:%Y-%m-%d %H:%M}" if run.written else NONE,
        str(run.address),
    ]


def set_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the columns and rows of the best values by set and run, and the numbers of the rows of the best runs.

    A run is the best on a set if it has the highest PSNR-Y of several, or the highest gain if bicubic differs. There
    are no rows if all runs were validated on one set, and with PSNR and SSIM only: the table of the runs has these.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.summary.sets))
    measured = {metric for run in runs for one in run.summary.sets.values() for metric in one.best}
    perceptual = [metric for metric in PERCEPTUAL if metric in measured]
    if len(names) < 2 and not perceptual:
        return [], [], []
    columns = ["Set", *(["Run"] if len(runs) > 1 else []), "Best PSNR-Y", "at step", "Over bicubic"]
    columns += [text for metric in ("ssim_y", *perceptual) for text in (f"Best {METRICS[metric].label}", "at step")]
    rows, best_rows = list[list[str]](), list[int]()
    differing = differing_sets(runs)
    for name in names:
        of_set = [(run, run.summary.sets[name]) for run in runs if name in run.summary.sets]
        values = [(_gain if name in differing else _psnr)(one) for _, one in of_set]
        known = [value for value in values if value is not None]
        if len(of_set) > 1 and known:
            best_rows.append(len(rows) + values.index(max(known)))
        rows += [[name, *([run.name] if len(runs) > 1 else []), *_set_cells(one, perceptual)] for run, one in of_set]
    return columns, rows, best_rows


def _set_cells(one: SetSummary, perceptual: Sequence[str]) -> list[str]:
    cells = []
    for metric in ("psnr_y", "ssim_y", *perceptual):
        best = one.best.get(metric)
        cells += [METRICS[metric].formatted(best.value), f"{best.step:,}"] if best else [NONE, NONE]
        if metric == "psnr_y":
            cells.append(formatted(_gain(one), "{:+.2f} dB".format))
    return cells


def _psnr(one: SetSummary) -> float | None:
    return one.best["psnr_y"].value if "psnr_y" in one.best else None


def _gain(one: SetSummary) -> float | None:
    """Return the gain of the best PSNR-Y over bicubic, in dB."""
    psnr = _psnr(one)
    return None if psnr is None or "psnr_y" not in one.bicubic else psnr - one.bicubic["psnr_y"]


def settings(runs: Sequence[Run]) -> tuple[list[list[str]], list[list[str]]]:
    """Return rows (setting, value of each run) for settings that differ, and (setting, value) for the others.

    Values other than that of the first run are marked.
    """
    known = [_all_settings(run) for run in runs]
    names = list(dict.fromkeys(name for one in known for name in one))
    different, equal = [], []
    for name in names:
        values = [one.get(name, NONE) for one in known]
        texts = [_text(value) for value in values]
        if any(value != values[0] for value in values):
            marked = (
                MARKED.format(text) if value != values[0] else text for value, text in zip(values, texts, strict=True)
            )
            different.append([f"{DIFFERENT} {name}", *marked])
        else:
            equal.append([name, texts[0]])
    return different, equal


def _all_settings(run: Run) -> dict[str, Any]:
    planned = {name: run.plan[key] for key, name in _PLANNED.items() if key in run.plan}
    return run.settings | {name: f"{value:,}" if isinstance(value, int) else value for name, value in planned.items()}


def _text(value: Any) -> str:
    """Return a setting as text; `null` means the trainer's default. Long values are shortened in the middle."""
    if value is None or isinstance(value, bool):
        return {None: "default", True: "yes", False: "no"}[value]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS // 2]}…{text[-_MAX_CHARS // 2 :]}"
