"""How far a run is: a bar on a terminal, a plain line now and then anywhere else."""

import sys
from time import monotonic
from types import TracebackType

from shardgen.shard.job import Progress
from srshards.terminal.text import Bar, shows_bars

_LINE_EVERY_S = 10.0


class ProgressDisplay:
    """Adds up the reports of a run over `total` photos (or samples) and shows them on stderr. A context manager."""

    def __init__(self, total: int, what: str = "photos") -> None:
        self.done = Progress()
        self._total, self._what = total, what
        self._start_s = monotonic()
        self._next_line_s = self._start_s + _LINE_EVERY_S
        self._bar = Bar(total=total, unit=f" {what}") if shows_bars() else None

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._print_line()

    @property
    def elapsed_s(self) -> float:
        return monotonic() - self._start_s

    def report(self, progress: Progress) -> None:
        self.done += progress
        if self._bar is not None:
            self._bar.set_postfix_str(self._rates(), refresh=False)
            self._bar.update(progress.photos)
        elif monotonic() >= self._next_line_s:
            self._print_line()
            self._next_line_s = monotonic() + _LINE_EVERY_S

    def _rates(self) -> str:
        text = f"{self.done.bytes / 1e6 / max(self.elapsed_s, 1e-9):.0f} MB/s"
        return f"{text}, {self.done.failures} failed" if self.done.failures else text

    def _print_line(self) -> None:
        rate = self.done.photos / max(self.elapsed_s, 1e-9)
        eta = (
            f", {(self._total - self.done.photos) / rate:.0f} s left" if rate and self.done.photos < self._total else ""
        )
        print(
            f"{self.done.photos:,}/{self._total:,} {self._what}, {rate:.0f} {self._what}/s, {self._rates()}{eta}",
            file=sys.stderr,
            flush=True,
        )
