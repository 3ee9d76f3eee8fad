"""Progress display of a training run."""

from types import TracebackType

from srshards.terminal.progress import ProgressBar
from trainer.training.meter import Pace

_LINE_EVERY_S = 20.0


class Display:
    """Context manager that shows the steps from `first` to `total`, loss and throughput on stderr."""

    def __init__(self, first: int, total: int) -> None:
        self._best = ""
        self._text = ""
        self._bar = ProgressBar(total, self._details, self._line, _LINE_EVERY_S, first, unit=" steps", smoothing=0.05)

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
        self._text = (
            f"loss {pace.loss:.4f}, lr {pace.lr:.1e}, {pace.patches_per_s:.0f} patches/s, "
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
        at = f"step {self._bar.done:,}/{self._bar.total:,}, {self._bar.per_s:.2f} steps/s"
        return ", ".join(filter(None, (at, self._text, self._best, f"{self._bar.left_s:.0f} s left")))
