"""Ctrl-C while PyTorch is being loaded, which takes seconds."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
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
    os.write(2, b"Interrupted.\n")
    os._exit(130)
