"""Standard input, output and error of a command: closed, full or gone, they never change what the command makes."""

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PIPE_BROKEN = 128 + signal.SIGPIPE  # what shells report of programs that end by it, as most do


class _Output(io.FileIO):
    """Descriptor 1 or 2. A write that fails is remembered instead of raised, and its text is lost."""

    failure: OSError | None = None  # the first
    lost_result = False
    in_remarks = False

    def write(self, data: Any) -> int:
        try:
            while (count := super().write(data)) is None:  # a pipe that does not block is full
                select.select([], [self], [])
            return count
        except OSError as error:
            self.failure = self.failure or error
            self.lost_result = self.lost_result or not _Output.in_remarks
            return len(data)


class _Input(io.FileIO):
    """Descriptor 0. Where it cannot be read (a terminal that is gone), it has ended."""

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError:
            return 0


@contextmanager
def guarded() -> Iterator[None]:
    """Around a whole command, before it opens anything: no write to its standard streams raises an error.

    What standard output did not take is named at the end; where that was the command's result, it has failed. A pipe
    whose reader has gone is not worth a word.
    """
    _fill_closed()
    output = _Output(1, "w", closefd=False)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Input(0, closefd=False)), _encoding(sys.stdin), "surrogateescape")
    sys.stdout, sys.stderr = _text(output, sys.stdout), _text(_Output(2, "w", closefd=False), sys.stderr)
    try:
        yield
    except SystemExit as ended:
        sys.stdout.flush()
        sys.exit(_exit_code(int(ended.code or 0), output))


@contextmanager
def remarks() -> Iterator[None]:
    """Around text about work that is done all the same: a command whose remarks are lost has not failed."""
    former, _Output.in_remarks = _Output.in_remarks, True
    try:
        yield
    finally:
        _Output.in_remarks = former


def _fill_closed() -> None:
    """Open /dev/null in place of what is closed, for child processes too.

    The next file to be opened would get that number otherwise, and with it whatever a library writes to stderr.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(descriptor, True)


def _text(raw: _Output, former: Any) -> io.TextIOWrapper:
    """As Python has opened the former one, but a name that the terminal cannot show is escaped."""
    at_once = former is not None and (former.line_buffering or former.write_through)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), _encoding(former), errors="backslashreplace", line_buffering=at_once
    )


def _encoding(stream: Any) -> str:
    return "utf-8" if stream is None else str(stream.encoding)


def _exit_code(code: int, output: _Output) -> int:
    if output.failure is None:
        return code
    failed = output.lost_result and not code
    if output.failure.errno == errno.EPIPE:
        return _PIPE_BROKEN if failed else code
    kind = "Error" if failed else "Warning"
    print(f"{kind}: cannot write to standard output: {output.failure.strerror}", file=sys.stderr)
    return 1 if failed else code
