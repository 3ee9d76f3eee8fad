"""The verdict at the top of the page: the best run, whether it was still improving, its data wait, and warnings."""

import math
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from markupsafe import Markup

from srshards.terminal.text import plural
from trainer.metrics_table import VISIBLE_DB
from trainer.report.journal_summary import JournalSummary, Validated
from trainer.report.runs import Run, same_bicubic

_LAST_SHARE = 0.25  # of the steps, whose validations are compared with the earlier ones
_MIN_VALIDATIONS = 4
_RISE_DB = 0.02
_FALL_DB = 0.05
_MUCH_DATA_WAIT = 0.02  # of the training time


class Course(Enum):
    """How PSNR-Y developed in the last quarter of a run's steps."""

    IMPROVING = "improving"
    LEVEL = "level"
    FALLING = "falling"


class Trend(NamedTuple):
    """`rise_db`: best PSNR-Y in the last quarter of the steps minus that before; `fall_db`: best minus last one."""

    rise_db: float
    fall_db: float

    @property
    def course(self) -> Course:
        if self.rise_db >= _RISE_DB:
            return Course.IMPROVING
        return Course.FALLING if self.fall_db >= _FALL_DB else Course.LEVEL


def trend(summary: JournalSummary) -> Trend | None:
    """Return the trend at the end of a run; None for fewer than four validations, or none in either part."""
    points = summary.validated.points("psnr_y")
    if sum(point.num for point in points) < _MIN_VALIDATIONS or summary.best is None or summary.last is None:
        return None
    end = (1 - _LAST_SHARE) * points[-1].last
    before = [point.high for point in points if point.last <= end]
    after = [point.high for point in points if point.last > end]
    if not before or not after or math.isnan(summary.last.psnr_y):
        return None
    return Trend(max(after) - max(before), summary.best.psnr_y - summary.last.psnr_y)


def verdict(runs: Sequence[Run], num_warnings: int) -> Markup:
    """Return a paragraph of HTML about the best of the ranked runs."""
    run, metrics = runs[0], runs[0].summary.best
    sentences: list[str]
    if metrics is None:
        what = "The run has" if len(runs) == 1 else f"The {len(runs):,} runs have"
        sentences = [Markup("{} no validation yet, so there is no result to judge.").format(what)]
    else:
        sentences = [_result(run, metrics, runs), _course(run), _data_wait(run)]
    sentences.append(_warnings(num_warnings))
    return Markup(" ").join(sentence for sentence in sentences if sentence)


def _result(run: Run, metrics: Validated, runs: Sequence[Run]) -> Markup:
    """Return the sentence about the result: with the highest PSNR-Y, or the highest gain if bicubic differs."""
    criterion = "PSNR-Y" if same_bicubic(runs) else "gain over bicubic"
    of_runs = f" has the highest {criterion} of {len(runs):,} runs: " if len(runs) > 1 else " reaches a PSNR-Y of "
    planned = f" of {run.planned:,}" if run.planned else ""
    text = Markup("<strong>{}</strong>{}<strong>{:.2f} dB</strong> at step {:,}{}").format(
        run.name, of_runs, metrics.psnr_y, metrics.step, planned
    )
    if not math.isnan(metrics.gain):
        side = "below" if metrics.gain < 0 else "above"
        text += Markup(", <strong>{:.2f} dB {} bicubic</strong> ({:.2f} dB)").format(
            abs(metrics.gain), side, metrics.bicubic_psnr_y
        )
        if abs(metrics.gain) < VISIBLE_DB:
            text += Markup(", a difference that cannot be seen")
    follower = runs[1] if len(runs) > 1 else None
    if follower and follower.summary.best and same_bicubic(runs):
        text += Markup("; {} follows with {:.2f} dB").format(follower.name, follower.summary.best.psnr_y)
    return text + "."


def _course(run: Run) -> str:
    found = trend(run.summary)
    if found is None:
        return "It has too few validations to tell whether it was still improving."
    if found.course is Course.IMPROVING:
        advice = "more steps may help" if run.state == "finished" else "it has steps left"
        rise = f"by {found.rise_db:.2f} dB in the last quarter of its steps"
        return f"It was still improving at the end, {rise}: {advice}."
    if found.course is Course.FALLING:
        return f"Its last validation is {found.fall_db:.2f} dB below its best one."
    return f"It had levelled off: the last quarter of its steps gained less than {_RISE_DB} dB."


def _data_wait(run: Run) -> str:
    share = run.summary.data_wait
    if math.isnan(share):
        return ""
    if share < _MUCH_DATA_WAIT:
        return f"It waited for data {share:.2%} of the training time, which is little."
    return f"It waited for data {share:.2%} of the training time, which more --workers or a faster disk may reduce."


def _warnings(num_warnings: int) -> Markup:
    if not num_warnings:
        return Markup("There are no warnings.")
    verb = "is" if num_warnings == 1 else "are"
    return Markup('There {} <a href="#warnings">{}</a>.').format(verb, plural(num_warnings, "warning"))
