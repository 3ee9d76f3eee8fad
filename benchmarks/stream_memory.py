"""Memory of this project's loader after 1, 10 and 50 epochs, in the training process and its workers.

    python -m benchmarks.stream_memory TASK_JSON EPOCHS...

RSS counts mapped pages of the page cache in every process that maps them; USS is the memory private to a process; PSS
divides shared memory among the processes that share it, so PSS adds up.
"""

import json
import os
import sys
from typing import Any

import psutil

from benchmarks.peers import ours
from benchmarks.peers.task import Task
from benchmarks.stream_measure import CopyOut

MARK = "STREAM_MEMORY "


def main(task_json: str, *epochs: str) -> None:
    """Print a line of JSON after each number of epochs."""
    task = Task.from_json(task_json)
    batches, touch, taken = iter(ours.batches(task)), CopyOut(), 0
    per_epoch = ours.samples_per_epoch(task) / task.batch
    for number in map(int, epochs):
        while taken < number * per_epoch:
            touch(next(batches))
            taken += 1
        print(MARK + json.dumps({"epochs": number, **describe()}), flush=True)
    getattr(batches, "close", lambda: None)()


def describe() -> dict[str, Any]:
    """Return bytes of this process, of its largest descendant, and of all together."""
    main_memory = psutil.Process().memory_full_info()
    workers = [child.memory_full_info() for child in psutil.Process().children(recursive=True)]
    return {
        "main": {"rss": main_memory.rss, "uss": main_memory.uss, "pss": main_memory.pss},
        "largest_worker": {
            key: max((getattr(each, key) for each in workers), default=0) for key in ("rss", "uss", "pss")
        },
        "processes": 1 + len(workers),
        "all_pss": main_memory.pss + sum(each.pss for each in workers),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
