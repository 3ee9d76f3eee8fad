"""Perform tasks from standard input, one after the other, and report what they found as events.

    python -m benchmarks.gpu.worker

One process for many tasks, because importing PyTorch and initialising CUDA take longer than most of them. Events are
`update` (figures, as soon as they are known), and `done` or `failed` at the end of a task. After a failure the parent
starts a new process, since errors of CUDA may be permanent.
"""

import faulthandler
import gc
import sys
import traceback
from collections.abc import Callable, Iterator
from pkgutil import resolve_name
from typing import Any

from benchmarks.gpu.task import Events, Task
from srshards.process.shortages import is_out_of_memory

_DUMP_BEFORE_S = 1.0


def main() -> None:
    """Perform all tasks."""
    events = Events()
    for line in sys.stdin:
        task = Task.from_json(line)
        # Every thread's stack, also of one that hangs in CUDA; the parent kills this process shortly afterwards.
        faulthandler.dump_traceback_later(max(0.1, task.limit_s - _DUMP_BEFORE_S))
        try:
            for found in _measure(task):
                events.emit(update=found)
        except Exception as error:  # of PyTorch, CUDA, the profiler, the workers: all belong in the result
            events.emit(failed=reason(error), traceback=traceback.format_exc().splitlines())
        else:
            events.emit(done=True)
        faulthandler.cancel_dump_traceback_later()
        _free_memory()


def _measure(task: Task) -> Iterator[dict[str, Any]]:
    measure: Callable[..., Iterator[dict[str, Any]]] = resolve_name(task.measure)
    yield from measure(**task.args)


def reason(error: Exception) -> str:
    """Return the reason for a failure in one line."""
    message = (str(error).strip().splitlines() or [""])[0]
    return f"out of memory ({message})" if is_out_of_memory(error) else f"{type(error).__name__}: {message}"


def _free_memory() -> None:
    """Free the memory of a task, and forget compiled functions, whose number PyTorch limits."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


if __name__ == "__main__":
    main()
