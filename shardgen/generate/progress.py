"""Progress display of `generate`, `pack` and `report`."""

from types import TracebackType

from shardgen.shard.job import Progress
from srshards.terminal.progress import ProgressBar

_LINE_EVERY_S = 10.0


class ProgressDisplay:
    """Context manager that sums the progress over `total` photos (or samples) and shows it on stderr."""

    def __init__(self, total: int, what: str = "photos") -> None:
        self.done = Progress()
        self._what = what
        self._bar = ProgressBar(total, self._rates, self._line, _LINE_EVERY_S, unit=f" {what}")

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)
        if kind is None and self._bar.total:
            self._bar.print_line()

    @property
    def elapsed_s(self) -> float:
        return self._bar.elapsed_s

    def report(self, progress: Progress) -> None:
        self.done += progress
        self._bar.advance(progress.photos)

    def _rates(self) -> str:
        text = f"{self.done.bytes / 1e6 / self.elapsed_s:.0f} MB/s"
        return f"{text}, {self.done.failures:,} failed" if self.done.failures else text

    def _line(self) -> str:
        bar, what = self._bar, self._what
        done = f"{bar.done:,}/{bar.total:,} {what}, {bar.per_s:.0f} {what}/s, {self._rates()}"
        return ", ".join(filter(None, (done, bar.time_left)))
