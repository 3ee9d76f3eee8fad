"""Take the batches of one epoch from a store that is not in the page cache; print one line of JSON.

    python -m benchmarks.cold_run MODULE TASK_JSON BATCHES [PATCHES_PER_SECOND]

With a rate, the process sleeps after each batch, as a training that needs so long for its steps. Imports only what the
case itself needs.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from time import perf_counter, sleep

from benchmarks.peers.task import Task
from benchmarks.stream_measure import disk_bytes_read

MARK = "COLD_RESULT "


@dataclass(frozen=True)
class Epoch:
    """Result of an epoch, from before the first batch was requested. `wait_s` is the time spent waiting for batches."""

    batches: int
    seconds: float
    wait_s: float
    disk_bytes: int


def main(module: str, task_json: str, number: str, rate: str = "0") -> None:
    task = Task.from_json(task_json)
    batches = iter(import_module(f"benchmarks.peers.{module}").batches(task))
    step_s = task.batch / float(rate) if float(rate) else 0.0
    disk, wait_s = disk_bytes_read(), 0.0
    start_s = due_s = perf_counter()
    for _ in range(int(number)):
        asked_s = perf_counter()
        next(batches)
        got_s = perf_counter()
        wait_s += got_s - asked_s
        due_s = max(due_s, got_s) + step_s
        if step_s and due_s - got_s > 0.001:  # sleeping takes at least this long; shorter steps add up
            sleep(due_s - got_s)
    found = Epoch(int(number), perf_counter() - start_s, wait_s, disk_bytes_read() - disk)
    print(MARK + json.dumps(asdict(found)), flush=True)


def result_in(output: str) -> Epoch:
    """Return the result that a run printed. ValueError when there is none."""
    for line in output.splitlines():
        if line.startswith(MARK):
            return Epoch(**json.loads(line.removeprefix(MARK)))
    raise ValueError("no result was printed")


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # do not wait for threads of libraries; the parent kills the process group
