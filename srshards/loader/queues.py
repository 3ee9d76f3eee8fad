"""Queues that cost what a pipe costs.

Those of `multiprocessing` give each queue a thread that writes, so that `put` never waits; here little is ever under
way, and waking that thread, in the workers and in the training process, is most of what handing over costs.
"""

import fcntl
import queue
from contextlib import suppress
from multiprocessing.context import BaseContext
from multiprocessing.queues import SimpleQueue
from typing import Any, cast

_PIPE_BYTES = 1 << 20  # some thousand messages: of all workers, when the training process is busy with something else


class PipeQueue(SimpleQueue[Any]):
    """What `DataLoader` needs of a queue. One process reads. `put` waits while the pipe is full: little may be put."""

    def __init__(self, *, ctx: Any) -> None:
        super().__init__(ctx=ctx)
        with suppress(OSError, AttributeError):  # not on macOS; not for users who have very many pipes
            fcntl.fcntl(self._writer.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[attr-defined]

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
