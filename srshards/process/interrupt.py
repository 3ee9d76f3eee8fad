"""Ctrl-C while PyTorch is being loaded, which takes seconds."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def loading() -> Iterator[None]:
    """Around imports, in the main thread: Ctrl-C ends the process, as an exception could get lost in there."""
    former = signal.signal(signal.SIGINT, _interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _interrupted(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # of a stream that is full
        os.write(2, b"Interrupted.\n")
    os._exit(130)
