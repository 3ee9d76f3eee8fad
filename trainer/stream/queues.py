"""Queues that cost what a pipe costs.

Those of `multiprocessing` give each queue a thread that writes, so that `put` never waits; here little is ever under
way, and waking that thread, in the workers and in the training process, is most of what handing over costs.
"""

import queue
from multiprocessing.context import BaseContext
from multiprocessing.queues import SimpleQueue
from typing import Any, cast


class PipeQueue(SimpleQueue[Any]):
    """What `DataLoader` needs of a queue. One process reads; `put` waits when the pipe is full."""

    def get(self, timeout: float | None = None) -> Any:
        """The next object. queue.Empty when none comes for so many seconds."""
        if not self._reader.poll(timeout):  # type: ignore[attr-defined]
            raise queue.Empty
        return super().get()

    def cancel_join_thread(self) -> None:
        """There is no thread."""


def with_pipes(context: BaseContext) -> BaseContext:
    """A way of starting processes, but with these queues."""
    own: Any = type(context)()  # the one of `get_context` is everybody's
    own.Queue = lambda: PipeQueue(ctx=own)
    return cast(BaseContext, own)
