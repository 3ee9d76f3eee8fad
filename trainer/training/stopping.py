"""Graceful stop on Ctrl-C, SIGTERM and SIGHUP: the training loop saves and stops after the current step."""

import signal
from types import FrameType, TracebackType
from typing import Any

# Users press Ctrl-C repeatedly, and both a closing terminal and its shell send SIGHUP.
_IGNORED_AT_THE_END = (signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """Context manager: the first signal sets `signal_number`, a second Ctrl-C raises KeyboardInterrupt at once.

    Later ones are ignored, as is any Ctrl-C after everything is saved. SIGHUP stays ignored if it already was (nohup).
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None  # the first signal of this process or, with several ranks, of another
        self._interrupted = False
        self._previous: dict[int, Any] = {}
        self._ends = False

    def __enter__(self) -> "StopRequest":
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            if not (self._ends and number in _IGNORED_AT_THE_END):  # the interpreter takes a moment to exit
                signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def adopt(self, number: int) -> None:
        """Treat another rank's signal (0 for none) as received here, where it may not have arrived yet."""
        self.signal_number = self.signal_number or number or None

    def end(self) -> None:
        """Ignore further signals, because everything is saved."""
        self._ends = True
        for number in _IGNORED_AT_THE_END:
            signal.signal(number, signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                self.end()
                raise KeyboardInterrupt
            self._interrupted = True
        self.signal_number = self.signal_number or number
