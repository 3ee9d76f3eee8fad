"""Warnings about the runs, and notes for comparing them."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from srshards.terminal.text import plural
from trainer.metrics_table import METRICS
from trainer.report.journal_summary import GAN, MAIN_SET
from trainer.report.names import joined
from trainer.report.runs import Run, differing_sets, same_bicubic
from trainer.report.tables import NONE


class Note(NamedTuple):
    """A sentence about some runs, or about all of them if there are none."""

    text: str
    runs: Sequence[Run] = ()

    @property
    def names(self) -> Markup:
        return joined([run.name for run in self.runs])


def warnings(runs: Sequence[Run]) -> list[Note]:
    """Return what makes runs incomparable, errors that ended them, damaged samples, and collapsing discriminators."""
    found = []
    scales = sorted({run.scale for run in runs if run.scale})
    if len(scales) > 1:
        times = ", ".join(f"{scale}\N{MULTIPLICATION SIGN}" for scale in scales)
        found.append(Note(f"These runs have different scales ({times}), so their PSNRs are not comparable."))
    if not same_bicubic(runs):
        different = "These runs were validated on different images: the PSNR of bicubic differs. Compare the gains."
        found.append(Note(different))
    mains = {next(iter(run.summary.sets), MAIN_SET) for run in runs}
    if others := [name for name in differing_sets(runs) if name not in mains]:
        differ = f"The runs have different images of {', '.join(others)}: the PSNR of bicubic differs."
        found.append(Note(f"{differ} Compare the gains."))
    for run in runs:
        summary = run.summary
        if summary.error is not None:
            found.append(Note(f"ended with an error: {summary.error or NONE}", [run]))
        if summary.damaged:
            num = len(summary.damaged)
            samples = "1 damaged sample was" if num == 1 else f"{num:,} damaged samples were"
            found.append(Note(f"{samples} replaced by others.", [run]))
        found += [Note(f"step {step:,}: {message or NONE}.", [run]) for step, message in summary.collapses]
        if more := summary.num_collapses - len(summary.collapses):
            found.append(Note(f"{plural(more, 'further warning')} of a collapse.", [run]))
    return found


def remarks(runs: Sequence[Run]) -> list[Note]:
    """Return what readers should know to judge the runs."""
    found = []
    if unvalidated := [run for run in runs if not run.summary.num_validations]:
        found.append(Note("not validated yet.", unvalidated))
    if adversarial := [run for run in runs if GAN in run.summary.losses]:
        text = "trained against a discriminator, which lowers PSNR and SSIM: judge by the previews or LPIPS instead."
        found.append(Note(text, adversarial))
    if unaccounted := [run for run in runs if not run.summary.account]:
        text = (
            "no account of the wall-clock time; a run writes it at each save, and runs of earlier versions have none."
        )
        found.append(Note(text, unaccounted))
    return found + [Note(text, [run]) for run in runs if (text := _other_choice(run))]


def _other_choice(run: Run) -> str:
    """Return what the run's `best.pth` is chosen by, unless it is PSNR-Y of the validation split."""
    metric, _, name = str(run.plan.get("best_by", "")).partition("@")
    if metric not in METRICS or (metric, name) == ("psnr_y", MAIN_SET):
        return ""
    best = run.summary.of_set(name).best.get(metric)
    value = f": {METRICS[metric].formatted(best.value)} at step {best.step:,}" if best else ""
    return f"best.pth is chosen by {METRICS[metric].label} on {name}{value}."
