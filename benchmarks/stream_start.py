"""From nothing to the first batch: the part of a training command that this project's loader decides.

    python -m benchmarks.stream_start TASK_JSON

The fork server is started first of all, as the trainer's command does, so that it imports while this process does.
"""

import os
import sys

from srshards.process.fork_server import GROUP_SIGNALS, start_fork_server

FIRST_BATCH = "first batch"


def main(task_json: str) -> None:
    """Say when the first batch is there, and end."""
    start_fork_server("srshards.loader.workers", GROUP_SIGNALS)
    from benchmarks.peers import ours
    from benchmarks.peers.task import Task

    next(iter(ours.batches(Task.from_json(task_json))))
    print(FIRST_BATCH, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
