"""One way of training in one process, which prints a line of JSON: what it measured, or why it could not.

    python -m benchmarks.gpu_run TASK_JSON

A failure is part of the result, with its traceback: what runs on a rented GPU has nobody to look at it. Data workers
import this module too, so it imports what trains only when it trains.
"""

import json
import os
import sys
import threading
import traceback
from typing import Any

from benchmarks.gpu_task import MARK, PLAIN, Task
from srshards.process.fork_server import GROUP_SIGNALS, start_fork_server

_LIMIT_S = {"cuda": 120.0, "cpu": 900.0}  # then it hangs, and says where


def main(task_json: str) -> None:
    """Measure, print, and end without waiting for anybody's threads."""
    task = Task.from_json(task_json)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer has it
    watch = threading.Timer(_LIMIT_S[task.device.partition(":")[0]], _give_up)
    watch.daemon = True
    watch.start()
    if task.way != PLAIN:
        # The workers' imports and this process's then take the time of one.
        start_fork_server("srshards.loader.workers", GROUP_SIGNALS)
    _end(_measure(task))


def _measure(task: Task) -> dict[str, Any]:
    try:
        if task.way == PLAIN:
            from benchmarks.gpu_plain import measure_plain

            return measure_plain(task)
        from benchmarks.gpu_ways import measure_ours

        return measure_ours(task)
    except Exception as error:  # of PyTorch, CUDA, the profiler, the workers: all of it belongs into the result
        return {"failed": _reason(error), "traceback": traceback.format_exc().splitlines()}


def _reason(error: Exception) -> str:
    from srshards.process.shortages import is_out_of_memory

    said = (str(error).strip().splitlines() or [""])[0]
    return f"out of memory ({said})" if is_out_of_memory(error) else f"{type(error).__name__}: {said}"


def _give_up() -> None:
    frames = sys._current_frames()
    stacks = [
        line
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and thread.ident in frames
        for line in (f"{thread.name}:", *"".join(traceback.format_stack(frames[thread.ident])).splitlines())
    ]
    _end({"failed": "it hung, and was ended", "traceback": stacks})


def _end(result: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps(result)}\n")
    sys.stdout.flush()
    os._exit(0)  # whoever started this ends the workers with the whole group


if __name__ == "__main__":
    main(sys.argv[1])
