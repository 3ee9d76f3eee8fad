"""The terms of the training loss as a setting: which losses, with which weights, in which steps. No PyTorch."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from srshards.errors import UsageError
from srshards.terminal.text import did_you_mean
from trainer.loss_table import LOSSES

_TERM = re.compile(r"(?P<name>[^:@]*)(:(?P<weight>[^@]*))?(@(?P<start>\d{0,18})-(?P<stop>\d{0,18}))?", re.ASCII)


@dataclass(frozen=True)
class LossTerm:
    """A loss, the factor of its value, and its steps: from `start`, counted from 0, up to but not including `stop`."""

    name: str
    weight: float = 1.0
    start: int = 0
    stop: int | None = None

    def is_active(self, step: int) -> bool:
        return self.start <= step and (self.stop is None or step < self.stop)

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f":{str(self.weight).removesuffix('.0')}"
        steps = f"@{self.start}-{'' if self.stop is None else self.stop}" if self.start or self.stop is not None else ""
        return f"{self.name}{weight}{steps}"


def parse_term(text: str, names: Collection[str] = LOSSES.keys()) -> LossTerm:
    """Return the term that e.g. `l1`, `fft:0.05` or `perceptual:1@5000-` describes. UsageError for anything else."""
    match = _TERM.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r}: expected NAME:WEIGHT or NAME:WEIGHT@START-STOP, e.g. l1:1 or fft:0.05@1000-20000")
    name = match["name"].strip()
    if name not in names:
        near = did_you_mean(name, names) or f"expected one of {', '.join(names)}"
        raise UsageError(f"unknown loss {name!r}; {near}")
    return LossTerm(name, _weight(name, match["weight"]), int(match["start"] or 0), _stop(match["stop"]))


def _weight(name: str, text: str | None) -> float:
    if text is None:
        return 1.0
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UsageError(f"{name}: expected a weight above 0, e.g. {name}:0.5, not {text!r}")
    return weight


def _stop(text: str | None) -> int | None:
    return int(text) if text else None


def check_terms(terms: Sequence[LossTerm]) -> None:
    """Raise UsageError for no terms, for a loss that is there twice, or for a stop that is not after the start."""
    names = [term.name for term in terms]
    if not terms:
        raise UsageError("--loss: expected at least one loss, e.g. l1")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--loss {name} is passed twice; pass it once, with its weight")
    for term in terms:
        check_stop("--loss", term)


def check_stop(option: str, term: LossTerm) -> None:
    """Raise UsageError if a term, passed as `option`, does not stop after its start."""
    if term.stop is not None and term.stop <= term.start:
        raise UsageError(f"{option} {term}: expected a stop after step {term.start}")


def check_start(option: str, term: LossTerm, total: int) -> None:
    """Raise UsageError if a term, passed as `option`, starts after the last of `total` steps."""
    if term.start >= total:
        raise UsageError(f"{option} {term} would start after the run's {total:,} steps; let it start earlier")


def check_steps(terms: Sequence[LossTerm], total: int) -> None:
    """Raise UsageError if a term starts after the last of `total` steps, or a step has no term at all."""
    for term in terms:
        check_start("--loss", term, total)
    changes = {0, *(stop for term in terms if (stop := term.stop) is not None and stop < total)}
    for step in sorted(changes):
        if not any(term.is_active(step) for term in terms):
            raise UsageError(f"no --loss is active at step {step:,}; let one of them start earlier or stop later")
