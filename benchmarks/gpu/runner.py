"""Run tasks and tests in child processes, each with its time limit. A failure is a result, and others go on."""

from collections.abc import Iterator, Sequence
from time import monotonic
from types import TracebackType
from typing import Any

from benchmarks.common import python_module
from benchmarks.gpu.child import Child
from benchmarks.gpu.task import TEST_FOLDER, TEST_LIMIT_S, Task

Result = dict[str, Any]

WORKER = python_module("benchmarks.gpu.worker")
TESTS = python_module("benchmarks.gpu.gpu_tests")
PART_IS_OVER = "the time limit of the part was reached"


class Worker:
    """Context manager: a process that performs tasks, replaced by a new one after each failure."""

    def __init__(self, command: Sequence[str] = WORKER) -> None:
        self._command = command
        self._child: Child | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def start(self, task: Task) -> None:
        """Begin a task, whose result `result` returns."""
        self._child = self._child or Child(self._command)
        self._child.send(task)

    def result(self, until_s: float, late: str) -> Result:
        """Wait until `until_s` (monotonic); return the figures of the task, and `failed`, the reason for a failure.

        `late` is the reason after that time.
        """
        assert self._child is not None
        found = _result_of(self._child, until_s, late)
        if "failed" in found:
            self._kill()
        return found

    def run(self, task: Task, until_s: float) -> Result:
        """Perform a task within its own limit, and until `until_s`."""
        own_s = monotonic() + task.limit_s
        self.start(task)
        late = exceeded(task.limit_s) if own_s <= until_s else PART_IS_OVER
        return self.result(min(own_s, until_s), late)

    def _kill(self) -> None:
        if self._child:
            self._child.kill()
            self._child = None


class Background:
    """Context manager: tasks that begin at once, each in a process of its own."""

    def __init__(self, tasks: Sequence[Task], limit_s: float, command: Sequence[str] = WORKER) -> None:
        self._until_s = monotonic() + limit_s
        self._workers = [(Worker(command), task) for task in tasks]

    def __enter__(self) -> "Background":
        for worker, task in self._workers:
            worker.start(task)
        return self

    def __exit__(self, *error: object) -> None:
        for worker, _ in self._workers:
            worker.__exit__(None, None, None)

    def results(self) -> Iterator[Result]:
        """Wait for the tasks, and yield their results."""
        for worker, task in self._workers:
            yield {"name": task.name, **worker.result(self._until_s, PART_IS_OVER)}


def run_tasks(worker: Worker, tasks: Sequence[Task], limit_s: float) -> Iterator[Result]:
    """Perform the tasks, and yield their results. `not_reached` is the reason for those left out."""
    until_s = monotonic() + limit_s
    for task in tasks:
        named: Result = {"name": task.name, **_identity(task)}
        if monotonic() < until_s:
            yield {**named, **worker.run(task, until_s)}
        else:
            yield {**named, "not_reached": PART_IS_OVER}


class Tests:
    """The tests of a folder. After one that hangs or ends its process, another process runs the others."""

    def __init__(self, limit_s: float, command: Sequence[str] = TESTS, test_limit_s: float = TEST_LIMIT_S) -> None:
        self._command = command
        self._until_s = monotonic() + limit_s
        self._test_limit_s = test_limit_s
        self._waiting: list[str] | None = None  # None: not known yet
        self._done: list[str] = []

    def results(self) -> Iterator[Result]:
        """Run the tests, and yield the result of each; that of the folder has the reason if pytest itself failed."""
        while self._waiting is None or self._waiting:
            child = Child([*self._command, TEST_FOLDER, *(f"--deselect={test}" for test in self._done)])
            try:
                yield from self._results_of(child)
            finally:
                child.kill()

    def _results_of(self, child: Child) -> Iterator[Result]:
        test, test_until_s = None, self._until_s
        try:
            while (event := child.event(min(self._until_s, test_until_s))) is not None:
                if "collected" in event:
                    self._waiting = event["collected"]
                elif "start" in event:
                    test, test_until_s = event["start"], monotonic() + self._test_limit_s
                else:
                    test, test_until_s = None, self._until_s
                    yield self._ended(event.pop("end"), **event)
            reason = child.reason_for_end()
        except TimeoutError:
            if monotonic() >= self._until_s:
                yield from self._leave_out(PART_IS_OVER)
                return
            reason = exceeded(self._test_limit_s)
        failed = {"outcome": "failed", "reason": reason, "traceback": child.last_lines()}
        if test is not None:
            yield self._ended(test, **failed)
        elif self._waiting is None or self._waiting:  # it ended between tests, and would do so again
            yield {"name": TEST_FOLDER, **failed}
            yield from self._leave_out("pytest ended before")

    def _ended(self, test: str, **found: Any) -> Result:
        assert self._waiting is not None
        self._waiting.remove(test)
        self._done.append(test)
        return {"name": test, **found}

    def _leave_out(self, why: str) -> Iterator[Result]:
        waiting, self._waiting = self._waiting or [], []
        for test in waiting:
            yield {"name": test, "not_reached": why}


def _identity(task: Task) -> Result:
    """Return the arguments by which the page refers to a result."""
    return {name: task.args[name] for name in ("model", "batch", "step", "workers") if name in task.args}


def _result_of(child: Child, until_s: float, late: str) -> Result:
    found: Result = {}
    try:
        while (event := child.event(until_s)) is not None:
            if "update" not in event:
                return found | {name: value for name, value in event.items() if name != "done"}
            found |= event["update"]
    except TimeoutError:
        return {**found, "failed": late, "traceback": child.last_lines()}
    return {**found, "failed": child.reason_for_end(), "traceback": child.last_lines()}


def exceeded(limit_s: float) -> str:
    return f"exceeded its time limit of {limit_s:g} s"
