"""A summary of a run's journal, which is read from its beginning to its end and never held as a whole."""

import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from srshards.format import Address
from srshards.storage.store import file_size, pieces
from trainer.report.thinning import Thinned

TRAINED = ("loss", "lr", "patches_per_s", "data_wait")
VALIDATED = ("psnr_y", "gain", "ssim_y", "trained_s")
_AT_ONCE = 4096  # lines
_MAX_LINE_BYTES = 1 << 20
_MAX_MESSAGE_CHARS = 1000
_MAX_STEP = 1 << 53
_MAX_NUMBER = 1e300
_NUMBERS = (float, int)  # and not bool


class Validated(NamedTuple):
    """A validation. PSNR in dB; NaN where the journal has none, as for images that equal HR."""

    step: int
    psnr_y: float
    ssim_y: float
    bicubic_psnr_y: float
    bicubic_ssim_y: float

    @property
    def gain(self) -> float:
        return self.psnr_y - self.bicubic_psnr_y


@dataclass
class JournalSummary:
    """What the page shows of a journal. `trained` and `validated` have the curves of TRAINED and VALIDATED."""

    trained: Thinned
    validated: Thinned
    step: int = 0  # the last one
    trained_s: float = 0.0
    waited_s: float = 0.0
    loss: float = math.nan  # of the last stretch
    best: Validated | None = None
    last: Validated | None = None
    num_validations: int = 0
    psnr_at: dict[int, float] = field(default_factory=dict)  # by step, of those that were asked for
    damaged: set[int] = field(default_factory=set)  # samples, by what was said of them: a resumed run says it again
    error: str | None = None  # that ended it, if nothing came after
    num_unreadable: int = 0  # lines
    first_unreadable: int = 0
    rates: "array[float]" = field(default_factory=lambda: array("d"))  # patches/s

    @property
    def patches_per_s(self) -> float:
        return median(self.rates) if self.rates else math.nan

    @property
    def data_wait(self) -> float:
        """The share of all time that was spent waiting for data."""
        return self.waited_s / self.trained_s if self.trained_s > 0 else math.nan


def empty_summary(most: int) -> JournalSummary:
    """The summary of a run that has not begun. `most` points of each curve are kept."""
    return JournalSummary(Thinned(TRAINED, most), Thinned(VALIDATED, most))


def read_journal(address: Address, wanted: frozenset[int], most: int) -> JournalSummary:
    """FileNotFoundError when there is none. `wanted` are steps whose PSNR is to be known exactly; `most`: points."""
    summary = empty_summary(most)
    trained: list[tuple[int, list[float]]] = []
    validated: list[tuple[int, list[float]]] = []
    for event, step, line in _events(address, summary):
        summary.step = max(summary.step, step)
        if event == "train":
            summary.error = None
            figures = [_number(line, name) for name in TRAINED]
            trained.append((step, figures))
            _add_training(summary, figures, _number(line, "seconds"))
        elif event == "val":
            summary.error = None
            validated.append((step, _add_validation(summary, step, line, wanted)))
        elif event == "damaged":
            summary.damaged.add(hash(str(line.get("reason"))))
        elif event == "error":
            summary.error = str(line.get("message", ""))[:_MAX_MESSAGE_CHARS]
        for curve, kept in ((summary.trained, trained), (summary.validated, validated)):
            if len(kept) == _AT_ONCE:
                _flush(curve, kept)
    _flush(summary.trained, trained)
    _flush(summary.validated, validated)
    return summary


def _flush(curve: Thinned, kept: list[tuple[int, list[float]]]) -> None:
    curve.add([step for step, _ in kept], [values for _, values in kept])
    kept.clear()


def _add_training(summary: JournalSummary, figures: list[float], seconds: float) -> None:
    """`figures` are those of TRAINED."""
    summary.loss, _, patches_per_s, data_wait = figures
    if seconds >= 0:
        summary.trained_s += seconds
        summary.waited_s += seconds * data_wait if data_wait >= 0 else 0.0
    if patches_per_s >= 0:
        summary.rates.append(patches_per_s)


def _add_validation(summary: JournalSummary, step: int, line: dict[str, Any], wanted: frozenset[int]) -> list[float]:
    figures = Validated(step, *(_number(line, name) for name in Validated._fields[1:]))
    summary.num_validations += 1
    summary.last = figures
    if math.isfinite(figures.psnr_y) and (summary.best is None or figures.psnr_y > summary.best.psnr_y):
        summary.best = figures
    if step in wanted:
        summary.psnr_at[step] = figures.psnr_y
    return [figures.psnr_y, figures.gain, figures.ssim_y, summary.trained_s]


def _events(address: Address, summary: JournalSummary) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(event, step, line). What cannot be read is counted, but for a last line that is being written."""
    for number, (line, whole) in enumerate(_lines(address), start=1):
        try:
            values = json.loads(line)
            event, step = values["event"], values["step"]
            if not (isinstance(event, str) and type(step) is int and 0 <= step < _MAX_STEP):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            if whole and line.strip():
                summary.num_unreadable += 1
                summary.first_unreadable = summary.first_unreadable or number
        else:
            yield event, step, values


def _lines(address: Address) -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether it has its end. Of one that is too long for a journal's, the beginning."""
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
    """NaN for whatever is not a finite number."""
    value: Any = line.get(name)
    return float(value) if type(value) in _NUMBERS and abs(value) < _MAX_NUMBER else math.nan
