"""Queues with little more overhead than a pipe.

Each queue of `multiprocessing` has a feeder thread, so that `put` never blocks. Here messages are few and small, and
waking that thread, in the workers and in the training process, would be most of the cost of passing a message.
"""

import fcntl
import queue
from contextlib import suppress
from multiprocessing.context import BaseContext
from multiprocessing.queues import SimpleQueue
from typing import Any, cast

_PIPE_BYTES = 1 << 20  # some thousand messages: from all workers, while the training process is busy


class PipeQueue(SimpleQueue[Any]):
    """The queue interface that `DataLoader` needs, for one reader. `put` blocks while the pipe is full."""

    def __init__(self, *, ctx: Any) -> None:
        super().__init__(ctx=ctx)
        with suppress(OSError, AttributeError):  # not on macOS, nor for users above their limit on pipe memory
            fcntl.fcntl(self._writer.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[attr-defined]

    def get(self, timeout: float | None = None) -> Any:
        """Return the next object. Raise queue.Empty after `timeout` seconds."""
        if not self._reader.poll(timeout):  # type: ignore[attr-defined]
            raise queue.Empty
        return super().get()

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no thread."""


def with_pipes(context: BaseContext) -> BaseContext:
    """Return a copy of a multiprocessing context whose `Queue` is a `PipeQueue`."""
    copy: Any = type(context)()  # contexts from `get_context` are shared
    copy.Queue = lambda: PipeQueue(ctx=copy)
    return cast(BaseContext, copy)
