"""Progress on stderr: a bar on a terminal, otherwise a line at intervals."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Any

from tqdm import tqdm

from srshards.terminal.text import Bar, fitted, shows_bars


class ProgressBar:
    """A progress display that counts up to `total`. A context manager.

    On a terminal it shows a bar, followed by `details()`; otherwise it prints `line()` every `line_every_s` seconds.
    `rate()` returns the items per second, 0 while they are unknown; None: the average since the start. `bar` are
    options for tqdm.
    """

    def __init__(
        self,
        total: int,
        details: Callable[[], str],
        line: Callable[[], str],
        line_every_s: float,
        initial: int = 0,
        rate: Callable[[], float] | None = None,
        **bar: Any,
    ) -> None:
        self.total, self.done = total, initial
        self._initial, self._details, self._line, self._line_every_s = initial, details, line, line_every_s
        self._rate = rate or self._average_rate
        self._start_s = monotonic()
        self._next_line_s = self._start_s + line_every_s
        self._bar = Bar(total=total, initial=initial, rate=rate, **bar) if shows_bars() else None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def elapsed_s(self) -> float:
        return max(monotonic() - self._start_s, 1e-9)

    @property
    def per_s(self) -> float:
        """Items per second; 0 while they are unknown."""
        return self._rate()

    @property
    def time_left(self) -> str:
        """The estimated remaining time, `28 s left`, `33 min left` or `1 h 5 min left`; empty if unknown or done."""
        if not self.per_s or self.done >= self.total:
            return ""
        seconds = round((self.total - self.done) / self.per_s)
        if seconds < 120:
            return f"{seconds} s left"
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours:,} h {minutes} min left" if hours else f"{minutes} min left"

    def advance(self, count: int = 1, print_now: bool = False) -> None:
        """Count and update the display. `print_now` prints a line even if none is due."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(self._details(), refresh=False)
            self._bar.update(count)
        elif print_now or monotonic() >= self._next_line_s:
            self.print_line()

    def print_line(self) -> None:
        """Print the line now, unless there is a bar."""
        if self._bar is None:
            self._next_line_s = monotonic() + self._line_every_s
            self.say(self._line())

    def _average_rate(self) -> float:
        return (self.done - self._initial) / self.elapsed_s

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar in the block, which writes to standard output, and show it again below."""
        with tqdm.external_write_mode():
            yield

    def say(self, line: str) -> None:
        """Print a separate line above the bar."""
        tqdm.write(fitted(line, sys.stderr), file=sys.stderr)
        sys.stderr.flush()
