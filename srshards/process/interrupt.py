"""Handle Ctrl-C during imports: PyTorch takes seconds to import."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def loading() -> Iterator[None]:
    """Make Ctrl-C end the process during imports, which could swallow an exception. For the main thread only."""
    previous = signal.signal(signal.SIGINT, _interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _interrupted(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # a closed or full stream
        os.write(2, b"Interrupted.\n")
    os._exit(130)
