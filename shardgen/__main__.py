"""Entry point of `python -m shardgen` and of the `shardgen` console script."""

import sys
from contextlib import suppress

if sys.platform == "win32":  # before the imports below, which need POSIX modules
    print("Error: shardgen runs on Linux; on Windows, install and use it in WSL 2 (wsl --install)", file=sys.stderr)
    sys.exit(2)

from srshards.process.fork_server import TERMINAL_SIGNALS, may_use_workers, start_fork_server
from srshards.process.shortages import leave_deleted_folder
from srshards.process.utf8 import require_utf8
from srshards.terminal.streams import guarded


def run() -> None:
    """Run the command line, imported late because worker processes import this module without needing it."""
    require_utf8()
    leave_deleted_folder()
    with guarded():
        if sys.argv[1:2] == ["generate"] and may_use_workers(sys.argv):
            # The workers' imports then overlap with this process's.
            with suppress(OSError):  # the engine tries again and reports the error
                start_fork_server("shardgen.engines.local", TERMINAL_SIGNALS)
        from shardgen.cli import main

        main()


if __name__ == "__main__":
    run()
