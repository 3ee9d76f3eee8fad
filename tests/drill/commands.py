"""The public commands, run as people run them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 600  # for what takes seconds, on a machine that does other things too

_CODES = (0, 1, 2, 130, 143)


class Done(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def crash(self) -> str | None:
        """What no command may end in: a traceback, a signal, an exit code that means nothing."""
        if "Traceback" in self.err or "Traceback" in self.out:
            return f"a traceback: {(self.err + self.out)[-800:]}"
        return None if self.code in _CODES else f"exit code {self.code}: {self.err[-800:]}"

    @property
    def is_named(self) -> bool:
        """Refused as it should be: exit code 1 or 2, and an error in words."""
        return self.code in (1, 2) and "rror:" in self.err and self.crash is None


def command_of(program: str, *words: object) -> list[str]:
    return [sys.executable, "-m", program, *(str(word) for word in words)]


def environment() -> dict[str, str]:
    """That of this process; one thread for each small network, and this very checkout."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def start(program: str, *words: object, **options: Any) -> "subprocess.Popen[str]":
    """A process group of its own, whose output nobody has to read."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options = {**quiet, "text": True, "start_new_session": True, "env": environment(), **options}
    return subprocess.Popen(command_of(program, *words), **options)


def run(program: str, *words: object, **options: Any) -> Done:
    """`python -m program words`. A hang counts as a death by SIGKILL."""
    return run_plain(command_of(program, *words), **options)


def run_plain(command: list[str], **options: Any) -> Done:
    """Any command. A hang counts as a death by SIGKILL."""
    options = {"timeout": TIMEOUT_S, "env": environment(), **options}
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, **options)
    except subprocess.TimeoutExpired:
        return Done(-9, "", f"it hung for {options['timeout']} s: {command}")
    return Done(done.returncode, done.stdout, done.stderr)
