"""Time from process start to the first batch, the part of a training's start-up that depends on this project's loader.

    python -m benchmarks.stream_start TASK_JSON

Starts the fork server first, as the trainer's command does, so that both processes import at the same time.
"""

import os
import sys

from srshards.process.fork_server import GROUP_SIGNALS, start_fork_server

FIRST_BATCH = "first batch"


def main(task_json: str) -> None:
    """Print a line when the first batch arrives, and exit."""
    start_fork_server("srshards.loader.chunk_worker", GROUP_SIGNALS)
    from benchmarks.peers import ours
    from benchmarks.peers.task import Task

    next(iter(ours.batches(Task.from_json(task_json))))
    print(FIRST_BATCH, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
