"""Run the public commands in separate processes and collect their output."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 600  # for commands that take seconds on an idle machine

_EXIT_CODES = (0, 1, 2, 130, 143)

Command = tuple[Any, ...]  # a program (module with a `__main__`) and its arguments
Problem = tuple[str, str]  # one of `record.MUST_BE_ZERO`, and a message


class Result(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def crash(self) -> str | None:
        """A description of the traceback, of the signal or of the undocumented exit code; None if there is none."""
        if "Traceback" in self.err or "Traceback" in self.out:
            return f"a traceback: {(self.err + self.out)[-800:]}"
        return None if self.code in _EXIT_CODES else f"exit code {self.code}: {self.err[-800:]}"

    @property
    def is_reported(self) -> bool:
        """Whether the command failed as documented: with exit code 1 or 2 and an error message."""
        return self.code in (1, 2) and "rror:" in self.err and self.crash is None

    def check(self) -> None:
        """Require success of a command that prepares the cases."""
        assert self.code == 0, self.err

    def problems_unless_success(self) -> list[Problem]:
        return [("crashed", self.crash or f"{self}")] if self.code or self.crash else []

    def problems_unless_reported(self) -> list[Problem]:
        return [] if self.is_reported else [("crashed", f"expected an error message: {self.crash or self}")]


def environment() -> dict[str, str]:
    """The environment of this process, with this checkout on the path and one thread per (small) network."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def start(program: str, *args: object, **options: Any) -> "subprocess.Popen[str]":
    """Start `python -m program args` in a new process group, without output unless `options` say otherwise."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options = {**quiet, "text": True, "start_new_session": True, "env": environment(), **options}
    return subprocess.Popen([sys.executable, "-m", program, *map(str, args)], **options)


def run(program: str, *args: object, timeout: float = TIMEOUT_S) -> Result:
    """Run `python -m program args`."""
    return wait(start(program, *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE), timeout)


def wait(process: "subprocess.Popen[str]", timeout: float = TIMEOUT_S) -> Result:
    """Collect the output of a command until it exits. A hang counts as a death by SIGKILL."""
    try:
        out, err = process.communicate(timeout=timeout)
        return Result(process.returncode, out, err)
    except subprocess.TimeoutExpired:
        return Result(-signal.SIGKILL, "", f"still running after {timeout} s")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object], poll: Callable[[], int | None]) -> None:
    """Return as soon as the condition holds or the process has exited; `poll` is that of `Popen` or `Warm`."""
    while not condition() and poll() is None:
        time.sleep(0.002)
