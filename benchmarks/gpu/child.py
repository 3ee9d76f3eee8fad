"""A child process that reports events, and is killed when it takes too long."""

import os
import select
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from benchmarks.common import REPOSITORY
from benchmarks.gpu.task import EVENTS_FD, Task, events_in

_POLL_S = 0.1
_KILL_S = 10.0
_MAX_LINES = 60


class Child:
    """A command that writes events (`task.Events`) and may read tasks from its standard input.

    It gets its own process group, so that `kill` also ends its children, and Ctrl-C reaches the parent only.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self._events, written = os.pipe()
        os.set_blocking(self._events, False)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `kill`)
        self._buffer = bytearray()
        self._waiting: deque[dict[str, Any]] = deque()
        try:
            self._process = subprocess.Popen(
                args,
                cwd=REPOSITORY,
                env={**os.environ, EVENTS_FD: str(written), "OMP_WAIT_POLICY": "PASSIVE"},  # as in the trainer
                pass_fds=(written,),
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,
            )
        finally:
            os.close(written)

    def send(self, task: Task) -> None:
        """Pass a task. Does nothing if the process has ended, which `event` reports."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(task.as_json().encode() + b"\n")
            self._process.stdin.flush()

    def event(self, deadline_s: float) -> dict[str, Any] | None:
        """Return the next event, or None when the process has ended. TimeoutError after `deadline_s` (monotonic)."""
        while not self._waiting:
            # Checked before reading: whatever a process wrote before its end can be read afterwards.
            has_ended = self._process.poll() is not None
            left_s = max(0.0, deadline_s - monotonic())
            if select.select([self._events], [], [], 0 if has_ended else min(_POLL_S, left_s))[0]:
                data = os.read(self._events, 1 << 16)
                self._buffer += data
                self._waiting.extend(events_in(self._buffer))
                if data:
                    continue
                with suppress(subprocess.TimeoutExpired):  # the pipe is closed: it ends, or only closed it
                    self._process.wait(max(0.0, deadline_s - monotonic()))
            if has_ended:
                return None
            if not left_s:
                raise TimeoutError
        return self._waiting.popleft()

    def last_lines(self) -> list[str]:
        """Return the end of what the process printed."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace").strip().splitlines()[-_MAX_LINES:]

    def reason_for_end(self) -> str:
        """Describe how the process ended by itself."""
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        last = (self.last_lines() or ["no output"])[-1]
        return f"the process {how} ({last.strip()[:300]})"

    def kill(self) -> None:
        """End the process and its children, and release everything."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a process cannot be killed while its driver hangs
            self._process.wait(_KILL_S)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        os.close(self._events)
        self._output.close()
