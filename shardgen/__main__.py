"""python -m shardgen, and the `shardgen` command."""

import sys
from contextlib import suppress

if sys.platform == "win32":  # before the imports below, which need what only POSIX has
    print("Error: shardgen runs on Linux; on Windows, install and use it in WSL 2 (wsl --install)", file=sys.stderr)
    sys.exit(2)

from srshards.process.fork_server import TERMINAL_SIGNALS, start_fork_server
from srshards.process.shortages import leave_deleted_folder
from srshards.process.utf8 import require_utf8
from srshards.terminal.streams import guarded


def run() -> None:
    """Import the command line only now: worker processes import this module too, and need none of it."""
    require_utf8()
    leave_deleted_folder()
    with guarded():
        if sys.argv[1:2] == ["generate"]:  # its workers' imports and this process's then take the time of one
            with suppress(OSError):  # it is started again where it is needed, and what is wrong is said there
                start_fork_server("shardgen.engines.local", TERMINAL_SIGNALS)
        from shardgen.cli import main

        main()


if __name__ == "__main__":
    run()
