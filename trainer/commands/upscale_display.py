"""Progress display and messages of `trainer upscale`."""

from collections.abc import Sequence
from types import TracebackType

from srshards.terminal.progress import ProgressBar
from srshards.terminal.text import say
from trainer.inference.upscale import Listener, Upscaled

_LINE_EVERY_S = 20.0
_REPLACED = ", replaced the existing file"


class UpscaleDisplay(Listener):
    """Context manager that shows the pixels done of photos of the given sizes in px, and prints each result.

    The progress never goes back: when memory runs out, it waits until the smaller tiles have reached it.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes, self._shares = sizes, [0.0] * len(sizes)
        self._done = 0.0
        self._finished = 0
        self._bar = ProgressBar(sum(sizes), self._photos, self._line, _LINE_EVERY_S, unit="px", unit_scale=True)

    def __enter__(self) -> "UpscaleDisplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def progressed(self, index: int, share: float) -> None:
        if share > self._shares[index]:
            self._done += self._sizes[index] * (share - self._shares[index])
            self._shares[index] = share
            self._finished += share == 1
            self._bar.advance(round(self._done) - self._bar.done)

    def wrote(self, upscaled: Upscaled) -> None:
        before, after = (f"{width} x {height}" for width, height in (upscaled.size_before, upscaled.size_after))
        replaced = _REPLACED if upscaled.replaced else ""
        with self._bar.hidden():
            say(f"{upscaled.result}  {before} to {after} px in {upscaled.seconds:.1f} s{replaced}")
            if upscaled.compare:
                say(f"{upscaled.compare}  bicubic | network{_REPLACED if upscaled.compare_replaced else ''}")

    def _photos(self) -> str:
        return f"{self._finished:,}/{len(self._sizes):,} photos"

    def _line(self) -> str:
        bar = self._bar
        share = f", {bar.done / bar.total:.0%}" if bar.total else ""
        done = f"{self._photos()}{share}, {bar.per_s / 1e6:.2f} megapixels/s"
        return ", ".join(filter(None, (done, bar.time_left)))
