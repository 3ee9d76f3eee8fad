"""Progress display of a training run."""

import math
from types import TracebackType

from srshards.terminal.progress import ProgressBar
from trainer.training.meter import Pace

_LINE_EVERY_S = 20.0


class Display:
    """Context manager that shows the steps from `first` to `total`, loss and throughput on stderr.

    Throughput and remaining time are computed from the paces of about the last 20 s of training. They do not include
    start-up, validations and saves, and are not shown before the first pace.
    """

    def __init__(self, first: int, total: int, patches_per_step: int) -> None:
        self._patches_per_step = patches_per_step
        self._patches = self._seconds = 0.0  # of all paces, with weights that decrease with their age
        self._best = ""
        self._text = ""
        self._bar = ProgressBar(
            total, self._details, self._line, _LINE_EVERY_S, first, self._steps_per_s, unit=" steps"
        )

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def best(self, text: str) -> None:
        """Set the best value so far to show; empty for none."""
        self._best = text and f"best {text}"

    def pace(self, pace: Pace) -> None:
        """Set the loss and throughput to show."""
        # The steps of a pace may take a fraction of a second, too short for a steady rate.
        weight = math.exp(-pace.seconds / _LINE_EVERY_S)
        self._patches = weight * self._patches + pace.patches_per_s * pace.seconds
        self._seconds = weight * self._seconds + pace.seconds
        self._text = (
            f"loss {pace.loss:.4f}, lr {pace.lr:.1e}, {self._patches / self._seconds:.0f} patches/s, "
            f"data wait {pace.data_wait:.1%}"
        )

    def step(self) -> None:
        self._bar.advance(print_now=self._bar.done + 1 == self._bar.total)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.say(line)

    def _details(self) -> str:
        return ", ".join(filter(None, (self._text, self._best)))

    def _line(self) -> str:
        at = f"step {self._bar.done:,}/{self._bar.total:,}"
        rate = f"{self._bar.per_s:.2f} steps/s" if self._bar.per_s else ""
        return ", ".join(filter(None, (at, rate, self._text, self._best, self._bar.time_left)))

    def _steps_per_s(self) -> float:
        return self._patches / self._seconds / self._patches_per_step if self._seconds else 0.0
