"""Entry point of `python -m trainer` and of the `trainer` command."""

import os
import sys
from contextlib import suppress

if sys.platform == "win32":  # before the imports below, which need POSIX-only modules
    print("Error: trainer runs on Linux; on Windows, install and use it in WSL 2 (wsl --install)", file=sys.stderr)
    sys.exit(2)

from srshards.process.fork_server import GROUP_SIGNALS, may_use_workers, start_fork_server
from srshards.process.interrupt import loading
from srshards.process.shortages import leave_deleted_folder
from srshards.process.utf8 import require_utf8
from srshards.terminal.streams import guarded

_NOT_TRAINING = {"models", "evaluate", "upscale", "export", "report", "-h", "--help", "--version"}


def run() -> None:
    """Run the command line, imported late: the fork server of the data workers starts first."""
    require_utf8()
    leave_deleted_folder()
    # Let idle OpenMP threads sleep: spinning slows everything down several times when other programs use the CPUs.
    # Must be set before PyTorch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    is_completion = "_TRAINER_COMPLETE" in os.environ
    is_training = _NOT_TRAINING.isdisjoint(sys.argv[1:]) and not is_completion
    with guarded():
        if is_training and may_use_workers(sys.argv):
            # The workers' imports then run in parallel with those of this process.
            with suppress(OSError):  # the loader tries again and reports the error
                start_fork_server("srshards.loader.chunk_worker", GROUP_SIGNALS)
        with loading():
            from trainer.cli import main
        main()


if __name__ == "__main__":
    run()
