"""python -m trainer, and the `trainer` command."""

import os
import sys

from trainer.stream.fork_server import start_fork_server

_NOT_TRAINING = {"evaluate", "upscale", "export", "-h", "--help"}


def run() -> None:
    """Import the command line only now: data workers import this module too, and need none of it."""
    # A thread that waits for the others sleeps instead of spinning, which costs several times as much where something
    # else runs too. Read when PyTorch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if _NOT_TRAINING.isdisjoint(sys.argv[1:]):  # the workers' imports and this process's then take the time of one
        start_fork_server()
    try:
        from trainer.cli import main
    except KeyboardInterrupt:  # PyTorch takes its time to load
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    main()


if __name__ == "__main__":
    run()
