"""Run commands in processes that are forked from one that has imported all modules, so that they start at once.

Importing PyTorch takes longer than a small run. Each process calls the same `main` as the command, in a new process
group, with the environment and the working directory of its caller. Processes that it starts in this way come from the
same server.
"""

import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from tests.drill.commands import TIMEOUT_S, Result

# Including modules that are imported late: a user without permissions cannot read Python's own files.
_PRELOADED = [
    "shardgen.cli",
    "trainer.cli",
    "trainer.commands.train",
    "trainer.evaluation.evaluate",
    "trainer.inference.upscale",
    "trainer.models.export",
    "torch._dynamo",
    "sched",
    "cProfile",
]

Prepare = tuple[Callable[..., object], tuple[Any, ...]]


class Warm:
    """A running command: `shardgen`, `trainer` or another module that `python -m` runs.

    The new process first calls `prepare`, a picklable function and its arguments.
    """

    def __init__(self, program: str, *args: object, prepare: Prepare | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="drill-output-")
        paths = [f"{self._folder.name}/{name}" for name in ("out", "err")]
        for path in paths:
            Path(path).touch()
        call = (program, [*map(str, args)], paths, dict(os.environ), os.getcwd(), prepare)
        self._process: ForkServerProcess = _context().Process(target=_run, args=call)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def poll(self) -> int | None:
        """Return the exit code, or None while the command runs."""
        return self._process.exitcode

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = TIMEOUT_S) -> Result:
        """Wait for the exit and return the result. A hang counts as a death by SIGKILL."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            return Result(-9, "", f"still running after {timeout} s")
        out, err = (Path(self._folder.name, name).read_text(errors="replace") for name in ("out", "err"))
        return Result(self._process.exitcode, out, err)


def run_warm(program: str, *args: object, prepare: Prepare | None = None) -> Result:
    """Run `python -m program args`, without the time that imports take."""
    return Warm(program, *args, prepare=prepare).wait()


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED, __name__])
    return context


def _run(
    program: str, args: list[str], paths: list[str], environment: dict[str, str], folder: str, prepare: Prepare | None
) -> None:
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign] # else it starts another server
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None  # of another TMPDIR
    for number in (signal.SIGTERM, signal.SIGHUP):  # the fork server may ignore them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, path in enumerate(paths, 1):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(fd, stream)
        os.close(fd)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    is_ours = program in ("shardgen", "trainer")
    run = partial(importlib.import_module(f"{program}.cli").main, args) if is_ours else partial(_run_module, program)
    if prepare:
        prepare[0](*prepare[1])
    sys.argv = [program, *args]
    try:
        run()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _run_module(name: str) -> None:
    sys.modules.pop(name, None)  # else runpy warns
    runpy.run_module(name, run_name="__main__")
