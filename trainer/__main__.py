"""python -m trainer, and the `trainer` command."""

import os
import signal
import sys
from types import FrameType

from trainer.stream.fork_server import start_fork_server

_NOT_TRAINING = {"evaluate", "upscale", "export", "report", "-h", "--help"}


def run() -> None:
    """Import the command line only now: data workers import this module too, and need none of it."""
    # A thread that waits for the others sleeps instead of spinning, which costs several times as much where something
    # else runs too. Read when PyTorch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if _NOT_TRAINING.isdisjoint(sys.argv[1:]):  # the workers' imports and this process's then take the time of one
        start_fork_server()
    former = signal.signal(signal.SIGINT, _interrupted)
    from trainer.cli import main

    signal.signal(signal.SIGINT, former)
    main()


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C while PyTorch is being loaded, which takes seconds: an exception could get lost in there."""
    os.write(2, b"Interrupted.\n")
    os._exit(130)


if __name__ == "__main__":
    run()
