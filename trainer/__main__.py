"""python -m trainer, and the `trainer` command."""

import os
import sys
from contextlib import suppress

if sys.platform == "win32":  # before the imports below, which need what only POSIX has
    print("Error: trainer runs on Linux; on Windows, install and use it in WSL 2 (wsl --install)", file=sys.stderr)
    sys.exit(2)

from srshards.process.fork_server import GROUP_SIGNALS, start_fork_server
from srshards.process.interrupt import loading
from srshards.process.shortages import leave_deleted_folder
from srshards.process.utf8 import require_utf8
from srshards.terminal.streams import guarded

_NOT_TRAINING = {"evaluate", "upscale", "export", "report", "-h", "--help", "--version"}


def run() -> None:
    """Import the command line only now: data workers import this module too, and need none of it."""
    require_utf8()
    leave_deleted_folder()
    # A thread that waits for the others sleeps instead of spinning, which costs several times as much where something
    # else runs too. Read when PyTorch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    is_completion = "_TRAINER_COMPLETE" in os.environ
    with guarded():
        if _NOT_TRAINING.isdisjoint(sys.argv[1:]) and not is_completion:
            # The workers' imports and this process's then take the time of one.
            with suppress(OSError):  # it is started again where it is needed, and what is wrong is said there
                start_fork_server("srshards.loader.workers", GROUP_SIGNALS)
        with loading():
            from trainer.cli import main
        main()


if __name__ == "__main__":
    run()
