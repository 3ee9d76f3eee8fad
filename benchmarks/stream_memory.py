"""What this project's loader holds in memory after 1, 10 and 50 epochs, in the training process and its workers.

    python -m benchmarks.stream_memory TASK_JSON EPOCHS...

Resident memory (RSS) counts pages of the page cache that are mapped, in each process that maps them; USS is what a
process has for itself alone; PSS divides what is shared among those that share it, so sums of it mean something.
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
    """Print a line of JSON after each of the numbers of epochs."""
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
    """Bytes of this process, of the largest process below it, and of all together."""
    main_memory = psutil.Process().memory_full_info()
    below = [child.memory_full_info() for child in psutil.Process().children(recursive=True)]
    return {
        "main": {"rss": main_memory.rss, "uss": main_memory.uss, "pss": main_memory.pss},
        "largest_worker": {
            key: max((getattr(each, key) for each in below), default=0) for key in ("rss", "uss", "pss")
        },
        "processes": 1 + len(below),
        "all_pss": main_memory.pss + sum(each.pss for each in below),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
