"""How far a run is: a bar on a terminal, a plain line now and then anywhere else. On stderr."""

import sys
from time import monotonic
from types import TracebackType

from tqdm import tqdm

from srshards.terminal.text import Bar, fitted, shows_bars
from trainer.training.meter import Pace

_LINE_EVERY_S = 20.0


class Display:
    """A context manager. The bar counts steps from `first` to `total`."""

    def __init__(self, first: int, total: int) -> None:
        self._first, self._total, self._step = first, total, first
        self._start_s = monotonic()
        self._next_line_s = self._start_s + _LINE_EVERY_S
        self._best = ""
        self._text = ""
        self._bar = Bar(total=total, initial=first, unit="it", smoothing=0.05) if shows_bars() else None

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def best(self, psnr_y: float) -> None:
        self._best = f"best {psnr_y:.2f} dB"

    def pace(self, pace: Pace) -> None:
        """What is shown beside the step from now on."""
        self._text = (
            f"loss {pace.loss:.4f}, lr {pace.lr:.1e}, {pace.patches_per_s:.0f} patches/s, "
            f"data wait {pace.data_wait:.1%}"
        )

    def step(self) -> None:
        self._step += 1
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(filter(None, (self._text, self._best))), refresh=False)
            self._bar.update()
        elif monotonic() >= self._next_line_s or self._step == self._total:
            self._next_line_s = monotonic() + _LINE_EVERY_S
            rate = (self._step - self._first) / (monotonic() - self._start_s)
            left_s = (self._total - self._step) / rate
            at = f"step {self._step:,}/{self._total:,}, {rate:.2f} it/s"
            self.say(", ".join(filter(None, (at, self._text, self._best, f"{left_s:.0f} s left"))))

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        tqdm.write(fitted(line, sys.stderr), file=sys.stderr)
        sys.stderr.flush()
