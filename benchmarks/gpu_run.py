"""Measure one case in one process; print one line of JSON: the figures, or the reason for a failure.

    python -m benchmarks.gpu_run TASK_JSON

A failure is part of the result, with its traceback, because a rented GPU is not watched. Data workers import this
module too, so imports that only training needs are local.
"""

import json
import os
import sys
import threading
import traceback
from typing import Any

from benchmarks.gpu_task import MARK, PLAIN, Task
from srshards.process.fork_server import GROUP_SIGNALS, start_fork_server

_LIMIT_S = {"cuda": 240.0, "cpu": 900.0}  # then the process is assumed to hang, and reports its stacks


def main(task_json: str) -> None:
    """Measure, print, and exit without joining any threads."""
    task = Task.from_json(task_json)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the trainer
    watch = threading.Timer(_LIMIT_S[task.device.partition(":")[0]], _report_hang)
    watch.daemon = True
    watch.start()
    if task.case != PLAIN:
        # Workers and this process then import at the same time.
        start_fork_server("srshards.loader.chunk_worker", GROUP_SIGNALS)
    _end(_measure(task))


def _measure(task: Task) -> dict[str, Any]:
    try:
        if task.case == PLAIN:
            from benchmarks.gpu_plain import measure_plain

            return measure_plain(task)
        from benchmarks.gpu_cases import measure_ours

        return measure_ours(task)
    except Exception as error:  # of PyTorch, CUDA, the profiler, the workers: all belong in the result
        return {"failed": _reason(error), "traceback": traceback.format_exc().splitlines()}


def _reason(error: Exception) -> str:
    from srshards.process.shortages import is_out_of_memory

    message = (str(error).strip().splitlines() or [""])[0]
    return f"out of memory ({message})" if is_out_of_memory(error) else f"{type(error).__name__}: {message}"


def _report_hang() -> None:
    frames = sys._current_frames()
    stacks = [
        line
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and thread.ident in frames
        for line in (f"{thread.name}:", *"".join(traceback.format_stack(frames[thread.ident])).splitlines())
    ]
    _end({"failed": "hung and was terminated", "traceback": stacks})


def _end(result: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps(result)}\n")
    sys.stdout.flush()
    os._exit(0)  # the parent kills the process group with the workers


if __name__ == "__main__":
    main(sys.argv[1])
