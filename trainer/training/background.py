"""A thread that writes files while the training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from types import TracebackType


class BackgroundWriter:
    """Context manager that performs one task at a time in a thread, and leaves the block when it is done.

    A task's exception is raised once, by the next call of any method, or at the end of a block without an exception.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "save")
        self._task: Future[None] | None = None

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self.wait()

    def start(self, task: Callable[[], None]) -> None:
        """Start the task, after the previous one is done."""
        self.wait()
        self._task = self._thread.submit(task)

    def check(self) -> None:
        """Raise the exception of a task that has failed. Does not wait."""
        if self._task is not None and self._task.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the task is done."""
        if self._task is not None:
            wait_for([self._task])  # keeps the task if a second Ctrl-C interrupts it
            task, self._task = self._task, None
            task.result()
