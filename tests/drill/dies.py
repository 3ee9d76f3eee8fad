"""Make a command kill itself with SIGKILL in an exact phase of saving a file.

Only files that the process itself writes are watched, so the commands run with --workers 0.
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
    "opened",  # the temporary file exists and is empty
    "half",  # it contains half of one write
    "written",  # before fsync
    "flushed",  # before it is renamed
    "renamed",
)
_TEMPORARY = re.compile(r"\.(?P<name>.+?)\.\d+(\.[0-9a-f]+)?\.tmp")


class _Moment:
    """A phase of saving a file whose final name matches `pattern`, after `skip` such phases."""

    def __init__(self, pattern: str, phase: str, skip: int) -> None:
        self._pattern, self._phase, self._skip = pattern, phase, skip

    def matches(self, path: object) -> bool:
        name = os.path.basename(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else ""
        match = _TEMPORARY.fullmatch(str(name))
        return fnmatch.fnmatchcase(match["name"] if match else str(name), self._pattern)

    def is_reached(self, phase: str, path: object) -> bool:
        """Count the phase if it matches. When true, the caller must call `die`."""
        if phase != self._phase or not self.matches(path):
            return False
        self._skip -= 1
        return self._skip < 0


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


def arm(pattern: str, phase: str, skip: int) -> None:
    """Replace the functions that open, write, sync and rename files by ones that die in the phase (see `_Moment`)."""
    moment = _Moment(pattern, phase, skip)
    open_file, open_fd, write_fd = io.open, os.open, os.write
    fsync, replace = os.fsync, os.replace

    class Bytes(io.BufferedRandom):
        def write(self, data: Any) -> int:
            if moment.is_reached("half", self.raw.name):  # type: ignore[attr-defined]
                _half(super().write, memoryview(data).cast("B"), self.flush)
            return super().write(data)

    class Text(io.TextIOWrapper):
        def write(self, text: str) -> int:
            if moment.is_reached("half", self.buffer.name):
                _half(super().write, text, self.flush)
            return super().write(text)

    def my_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if not (set(mode) & set("wax+") and moment.matches(file)):
            return open_file(file, mode, *args, **options)
        opened = open_file(file, mode, *args, **options)
        if moment.is_reached("opened", file):
            die()
        if "r" in mode:  # opened to be flushed
            return opened
        opened.close()
        raw = io.FileIO(os.fspath(file), "a+" if "a" in mode else "w+")
        return Bytes(raw) if "b" in mode else Text(io.BufferedRandom(raw), "utf-8", line_buffering=True)

    def my_os_open(path: Any, flags: int, *args: Any, **options: Any) -> int:
        fd = open_fd(path, flags, *args, **options)
        if flags & (os.O_WRONLY | os.O_RDWR) and moment.is_reached("opened", path):
            die()
        return fd

    def my_write(fd: int, data: Any) -> int:
        if moment.is_reached("half", _name_of(fd)):
            view = memoryview(data)
            _half(lambda part: write_fd(fd, part), view[: len(view) // 8192 * 4096 * 2 or len(view)], lambda: None)
        return write_fd(fd, data)

    def my_fsync(fd: Any) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        if moment.is_reached("written", _name_of(number)):
            die()
        fsync(fd)

    def my_replace(source: Any, target: Any, **options: Any) -> None:
        if moment.is_reached("flushed", target):
            die()
        replace(source, target, **options)
        if moment.is_reached("renamed", target):
            die()

    builtins.open = io.open = my_open
    calls: Any = os
    calls.open, calls.write, calls.fsync, calls.replace = my_os_open, my_write, my_fsync, my_replace
