"""Run one case in one process: write its store, or count its batches and print one line of JSON.

    python -m benchmarks.stream_run MODULE TASK_JSON WINDOW_JSON untouched|copied

Imports only what the case itself needs, and runs in any environment that provides it.
"""

import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType

from benchmarks.peers.task import SCALE, Task
from benchmarks.stream_measure import CopyOut, Counted, Window, check, count, leave

MARK = "STREAM_RESULT "  # prefix of the result; libraries may print more


def main(module: str, task_json: str, window_json: str = "", touch: str = "untouched") -> None:
    """Count batches with a window, write the store without one."""
    case, task = import_module(f"benchmarks.peers.{module}"), Task.from_json(task_json)
    if not window_json:
        prepare(case, task)
        return
    read_all(Path(task.store))
    batches = iter(case.batches(task))
    small_patch = task.patch // SCALE if task.input == "lr" else task.patch
    check(next(batches), task.batch, task.patch, small_patch)
    counted = count(batches, Window(**json.loads(window_json)), leave if touch == "untouched" else CopyOut())
    print(MARK + json.dumps(asdict(counted)), flush=True)
    getattr(batches, "close", lambda: None)()  # a generator: ends its workers and frees shared memory


def prepare(case: ModuleType, task: Task) -> None:
    """Write the case's store, unless it is complete: cases with equal stores share one."""
    complete = task.folder / "prepared"
    if not complete.exists():
        case.prepare(task)
        complete.touch()


def result_in(output: str) -> Counted:
    """Return the result that a run printed. ValueError when there is none."""
    for line in output.splitlines():
        if line.startswith(MARK):
            return Counted(**json.loads(line.removeprefix(MARK)))
    raise ValueError("no result was printed")


def read_all(folder: Path) -> None:
    """Read every file into the page cache."""
    buffer = bytearray(1 << 24)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # do not wait for threads of libraries; the parent kills the process group
