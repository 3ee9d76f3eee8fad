"""A command that kills itself with a real SIGKILL at an exact moment of writing a file.

Only what the process itself writes counts, so the programs are run with --workers 0.
"""

import builtins
import fnmatch
import io
import os
import re
import signal
from collections.abc import Callable
from typing import Any

PHASES = (
    "opened",  # the temporary file is there, and empty
    "half",  # half of what was to be written at once is there
    "written",  # before it is flushed to the disk
    "flushed",  # before it gets its name
    "renamed",  # and nothing after
)
_TEMPORARY = re.compile(r"\.(?P<name>.+?)\.\d+(\.[0-9a-f]+)?\.tmp")


class _Moment:
    """Kills when the phase has come so often for such a file."""

    def __init__(self, pattern: str, phase: str, passes: int) -> None:
        self._pattern, self._phase, self._passes = pattern, phase, passes

    def is_ours(self, path: object) -> bool:
        name = os.path.basename(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else ""
        match = _TEMPORARY.fullmatch(str(name))
        return fnmatch.fnmatchcase(match["name"] if match else str(name), self._pattern)

    def comes(self, phase: str, path: object) -> bool:
        """Whether this is the moment: then nothing more may happen but what the caller does, and `die`."""
        if phase != self._phase or not self.is_ours(path):
            return False
        self._passes -= 1
        return self._passes < 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _name_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _half(write: Callable[[Any], Any], data: Any, flush: Callable[[], object]) -> None:
    write(data[: max(1, len(data) // 2)])
    flush()
    die()


def arm(pattern: str, phase: str, passes: int) -> None:
    """Die in a phase of the writing of a file of that final name, after it was let pass so often."""
    _watch(_Moment(pattern, phase, passes))


def _watch(moment: _Moment) -> None:
    """Put ourselves between the program and the system's calls."""
    open_file, open_fd, write_fd = io.open, os.open, os.write
    fsync, replace = os.fsync, os.replace

    class Bytes(io.BufferedRandom):
        def write(self, data: Any) -> int:
            if moment.comes("half", self.raw.name):  # type: ignore[attr-defined]
                _half(super().write, memoryview(data).cast("B"), self.flush)
            return super().write(data)

    class Text(io.TextIOWrapper):
        def write(self, text: str) -> int:
            if moment.comes("half", self.buffer.name):
                _half(super().write, text, self.flush)
            return super().write(text)

    def my_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if not (set(mode) & set("wax+") and moment.is_ours(file)):
            return open_file(file, mode, *args, **options)
        opened = open_file(file, mode, *args, **options)
        if moment.comes("opened", file):
            die()
        if "r" in mode:  # to flush it
            return opened
        opened.close()
        raw = io.FileIO(os.fspath(file), "a+" if "a" in mode else "w+")
        return Bytes(raw) if "b" in mode else Text(io.BufferedRandom(raw), "utf-8", line_buffering=True)

    def my_os_open(path: Any, flags: int, *args: Any, **options: Any) -> int:
        fd = open_fd(path, flags, *args, **options)
        if flags & (os.O_WRONLY | os.O_RDWR) and moment.comes("opened", path):
            die()
        return fd

    def my_write(fd: int, data: Any) -> int:
        if moment.comes("half", _name_of(fd)):
            view = memoryview(data)
            _half(lambda part: write_fd(fd, part), view[: len(view) // 8192 * 4096 * 2 or len(view)], lambda: None)
        return write_fd(fd, data)

    def my_fsync(fd: Any) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        if moment.comes("written", _name_of(number)):
            die()
        fsync(fd)

    def my_replace(source: Any, target: Any, **options: Any) -> None:
        if moment.comes("flushed", target):
            die()
        replace(source, target, **options)
        if moment.comes("renamed", target):
            die()

    builtins.open = io.open = my_open
    calls: Any = os
    calls.open, calls.write, calls.fsync, calls.replace = my_os_open, my_write, my_fsync, my_replace
