"""Summarise a run's journal in one streaming pass."""

import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from srshards.format import Address
from srshards.storage.store import file_size, pieces
from trainer.metrics_table import METRICS
from trainer.report.thinning import Thinned
from trainer.training.account import PHASE_NAMES

TRAINED = ("loss", "lr", "patches_per_s", "data_wait")
VALIDATED = ("psnr_y", "gain", "ssim_y", "trained_s")
# Of the discriminator: names in the journal and of the curves, and those in the journals of earlier versions.
SCORES = {"real": "real_score", "generated": "fake_score"}
RATIO = "ratio"  # of the discriminator's loss to the network's adversarial loss
GAN, DISCRIMINATOR = "gan", "discriminator"  # names of the network's and the discriminator's among the single losses
MAIN_SET = "val"  # the validation split of the shards
MAX_LOSSES = 32
_MAX_SETS = 32
_SET_POINTS = 120  # of a curve of one set
_MAX_LINE_BYTES = 1 << 20
_MAX_MESSAGE_CHARS = 1000
_MAX_COLLAPSES = 8
_MAX_NAME_CHARS = 64
_MAX_STEP = 1 << 53
_MAX_NUMBER = 1e300
_NUMBERS = (float, int)  # excludes bool


class Validated(NamedTuple):
    """The metrics of a validation. PSNR in dB; NaN where the journal has no value, as for images identical to HR."""

    step: int
    psnr_y: float
    ssim_y: float
    bicubic_psnr_y: float
    bicubic_ssim_y: float

    @property
    def gain(self) -> float:
        return self.psnr_y - self.bicubic_psnr_y


class Best(NamedTuple):
    """The best value of a metric, and the step of its validation."""

    value: float
    step: int


class SetSummary:
    """The metrics of one set: a curve of each metric of METRICS, its best value, and that of bicubic."""

    def __init__(self, max_points: int) -> None:
        self.curves = Thinned(tuple(METRICS), min(max_points, _SET_POINTS))
        self.best: dict[str, Best] = {}
        self.bicubic: dict[str, float] = {}

    def add(self, step: int, metrics: dict[str, Any]) -> None:
        """Add a validation."""
        values = {name: _number(metrics, name) for name in METRICS}
        for name, value in values.items():
            best = self.best.get(name)
            if not math.isnan(value) and (best is None or METRICS[name].is_better(value, best.value)):
                self.best[name] = Best(value, step)
            bicubic = _number(metrics, f"bicubic_{name}")
            if not math.isnan(bicubic):
                self.bicubic[name] = bicubic
        self.curves.append(step, list(values.values()))


@dataclass
class JournalSummary:
    """The content of a journal that the page shows.

    `trained` and `validated` are curves of TRAINED and VALIDATED, `adversarial` of SCORES and RATIO, and each of
    `losses` a curve `loss`.
    """

    trained: Thinned
    validated: Thinned
    adversarial: Thinned
    losses: dict[str, Thinned] = field(default_factory=dict)  # single ones by name, in the order of the journal
    step: int = 0  # the last one
    trained_s: float = 0.0
    waited_s: float = 0.0
    loss: float = math.nan  # in the last `train` line
    best: Validated | None = None
    last: Validated | None = None
    sets: dict[str, SetSummary] = field(default_factory=dict)  # by name, that of `last` first
    num_validations: int = 0
    psnr_at: dict[int, float] = field(default_factory=dict)  # by step, for the `wanted` steps
    damaged: set[int] = field(default_factory=set)  # hashes of the messages: a resumed run repeats them
    error: str | None = None  # that ended the run, unless it was resumed
    collapses: list[tuple[int, str]] = field(default_factory=list)  # steps and messages of the first warnings
    num_collapses: int = 0
    num_unreadable: int = 0  # lines
    first_unreadable: int = 0
    account: dict[str, float] | None = None  # seconds by phase, keyed as PHASE_NAMES
    steps_share: float = math.nan  # of the steps in the time from the first to the last
    rates: "array[float]" = field(default_factory=lambda: array("d"))  # patches/s

    def of_set(self, name: str) -> SetSummary:
        """Return the metrics of a set, which has none if the run was not validated on it."""
        return self.sets.get(name) or SetSummary(2)

    def of_loss(self, name: str) -> Thinned:
        """Return the curve of a single loss, empty if the run does not have it."""
        return self.losses.get(name) or Thinned(("loss",), 2)

    def flush(self) -> None:
        """Complete the curves."""
        of_sets = (one.curves for one in self.sets.values())
        for curve in (self.trained, self.validated, self.adversarial, *self.losses.values(), *of_sets):
            curve.flush()

    @property
    def patches_per_s(self) -> float:
        return median(self.rates) if self.rates else math.nan

    @property
    def data_wait(self) -> float:
        """Share of the training time spent waiting for data."""
        return self.waited_s / self.trained_s if self.trained_s > 0 else math.nan


def empty_summary(max_points: int) -> JournalSummary:
    """Return the summary of a run that has not started. Each curve has at most `max_points` points."""
    trained, validated, adversarial = (Thinned(names, max_points) for names in (TRAINED, VALIDATED, (*SCORES, RATIO)))
    return JournalSummary(trained, validated, adversarial)


def read_journal(address: Address, wanted: frozenset[int], max_points: int) -> JournalSummary:
    """Read a journal, with exact PSNRs for the `wanted` steps. FileNotFoundError if there is none."""
    summary = empty_summary(max_points)
    for event, step, line in _events(address, summary):
        summary.step = max(summary.step, step)
        if event == "train":
            summary.error = None
            values = [_number(line, name) for name in TRAINED]
            summary.trained.append(step, values)
            _add_training(summary, values, _number(line, "seconds"))
            _add_losses(summary, step, line, max_points)
        elif event == "val":
            summary.error = None
            summary.validated.append(step, _add_validation(summary, step, line, wanted))
            _add_sets(summary, step, line, max_points)
        elif event == "account":
            _add_account(summary, line)
        elif event == "damaged":
            summary.damaged.add(hash(str(line.get("reason"))))
        elif event == "error":
            summary.error = str(line.get("message", ""))[:_MAX_MESSAGE_CHARS]
        elif event == "collapse":
            summary.num_collapses += 1
            if len(summary.collapses) < _MAX_COLLAPSES:
                summary.collapses.append((step, str(line.get("message", ""))[:_MAX_MESSAGE_CHARS]))
    summary.flush()
    return summary


def _add_training(summary: JournalSummary, values: list[float], seconds: float) -> None:
    """Add a `train` line to the summary. `values` are those of TRAINED."""
    summary.loss, _, patches_per_s, data_wait = values
    if seconds >= 0:
        summary.trained_s += seconds
        summary.waited_s += seconds * data_wait if data_wait >= 0 else 0.0
    if patches_per_s >= 0:
        summary.rates.append(patches_per_s)


def _add_losses(summary: JournalSummary, step: int, line: dict[str, Any], max_points: int) -> None:
    """Add the single losses and the discriminator's scores of a `train` line, which need not have any."""
    losses, scores = (values if isinstance(values := line.get(key), dict) else {} for key in ("losses", "scores"))
    for name in losses:
        value = _number(losses, name)
        if math.isnan(value) or len(name) > _MAX_NAME_CHARS:
            continue
        if name not in summary.losses and len(summary.losses) < MAX_LOSSES:
            summary.losses[name] = Thinned(("loss",), max_points)
        if name in summary.losses:
            summary.losses[name].append(step, [value])
    if not losses and not scores:
        return
    real_and_generated = [_number(scores, name if name in scores else earlier) for name, earlier in SCORES.items()]
    if any(map(math.isnan, real_and_generated)):
        real_and_generated = [math.nan, math.nan]
    ratio = _ratio(_number(losses, DISCRIMINATOR), _number(losses, GAN))
    summary.adversarial.append(step, [*real_and_generated, ratio])


def _ratio(discriminator: float, network: float) -> float:
    """Return the discriminator's loss per loss of the network; NaN unless the latter is positive (hinge: any sign)."""
    return _number({RATIO: discriminator / network}, RATIO) if network > 0 else math.nan


def _add_validation(summary: JournalSummary, step: int, line: dict[str, Any], wanted: frozenset[int]) -> list[float]:
    metrics = Validated(step, *(_number(line, name) for name in Validated._fields[1:]))
    summary.num_validations += 1
    summary.last = metrics
    if math.isfinite(metrics.psnr_y) and (summary.best is None or metrics.psnr_y > summary.best.psnr_y):
        summary.best = metrics
    if step in wanted:
        summary.psnr_at[step] = metrics.psnr_y
    return [metrics.psnr_y, metrics.gain, metrics.ssim_y, summary.trained_s]


def _add_sets(summary: JournalSummary, step: int, line: dict[str, Any], max_points: int) -> None:
    """Add the metrics of every set in a `val` line, whose own ones are those of the main set."""
    main, others = line.get("set", MAIN_SET), line.get("sets", {})
    for name, metrics in {main: line, **others}.items() if isinstance(others, dict) else ():
        if not isinstance(name, str) or not isinstance(metrics, dict) or len(name) > _MAX_NAME_CHARS:
            continue
        if name in summary.sets or len(summary.sets) < _MAX_SETS:
            summary.sets.setdefault(name, SetSummary(max_points)).add(step, metrics)


def _add_account(summary: JournalSummary, line: dict[str, Any]) -> None:
    """Take over an `account` line, which covers the run up to its step. Lines with invalid values are ignored."""
    account = {key: _number(line, key) for key in PHASE_NAMES}
    if all(seconds >= 0 for seconds in account.values()) and sum(account.values()) > 0:
        summary.account, summary.steps_share = account, _number(line, "steps_share")


def _events(address: Address, summary: JournalSummary) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield (event, step, line). Unreadable lines are counted, except a last line that is still being written."""
    for number, (line, is_complete) in enumerate(_lines(address), start=1):
        try:
            values = json.loads(line)
            event, step = values["event"], values["step"]
            if not (isinstance(event, str) and type(step) is int and 0 <= step < _MAX_STEP):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            if is_complete and line.strip():
                summary.num_unreadable += 1
                summary.first_unreadable = summary.first_unreadable or number
        else:
            yield event, step, values


def _lines(address: Address) -> Iterator[tuple[bytes, bool]]:
    """Yield each line, and whether it is terminated. Overlong lines are truncated."""
    size = file_size(address)
    if size is None:
        raise FileNotFoundError(str(address))
    rest = b""
    for piece in pieces(address, size):
        *lines, rest = (rest + piece).split(b"\n")
        yield from ((line, True) for line in lines)
        rest = rest[:_MAX_LINE_BYTES]
    if rest:
        yield rest, False


def _number(line: dict[str, Any], name: str) -> float:
    """Return a finite number of the line, NaN for anything else."""
    value: Any = line.get(name)
    return float(value) if type(value) in _NUMBERS and abs(value) < _MAX_NUMBER else math.nan
