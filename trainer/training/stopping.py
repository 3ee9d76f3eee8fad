"""Ctrl-C, SIGTERM and SIGHUP: a request that the training loop sees at the end of a step, so that it can save."""

import signal
from types import FrameType, TracebackType
from typing import Any

# People press Ctrl-C again and again, and a terminal that is closed sends SIGHUP as its shell does.
_HARMLESS_AT_THE_END = (signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """While the `with` block runs, the first signal sets `signal_number`; a second Ctrl-C interrupts at once.

    Those after it change nothing any more, and neither does a second one when all is saved already. SIGHUP, which says
    that the terminal was closed, stays ignored where it is (nohup).
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None  # of this process's first signal, or of another's that it trains with
        self._interrupted = False
        self._former: dict[int, Any] = {}
        self._ends = False

    def __enter__(self) -> "StopRequest":
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            if not (self._ends and number in _HARMLESS_AT_THE_END):  # the interpreter itself takes a moment to end
                signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def honour(self, number: int) -> None:
        """Treat a signal of another process, 0 for none, as this one's, whose own may still be on its way."""
        self.signal_number = self.signal_number or number or None

    def end(self) -> None:
        """Nothing is left to be interrupted."""
        self._ends = True
        for number in _HARMLESS_AT_THE_END:
            signal.signal(number, signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                self.end()
                raise KeyboardInterrupt
            self._interrupted = True
        self.signal_number = self.signal_number or number
