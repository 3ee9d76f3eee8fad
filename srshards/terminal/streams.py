"""Guard the standard streams of a command, so that a closed or failing stream does not affect its work."""

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PIPE_BROKEN = 128 + signal.SIGPIPE  # the exit code that shells report for programs ended by SIGPIPE


class _Output(io.FileIO):
    """Descriptor 1 or 2. The first failed write is recorded instead of raised, and its text is lost."""

    failure: OSError | None = None
    lost_result = False
    is_nonessential = False

    def write(self, data: Any) -> int:
        try:
            while (count := super().write(data)) is None:  # a full non-blocking pipe
                select.select([], [self], [])
            return count
        except OSError as error:
            self.failure = self.failure or error
            self.lost_result = self.lost_result or not _Output.is_nonessential
            return len(data)


class _Input(io.FileIO):
    """Descriptor 0. A read error, e.g. of a closed terminal, counts as end of file."""

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError:
            return 0


@contextmanager
def guarded() -> Iterator[None]:
    """Run a command such that writes to its standard streams never raise. Enter before the command opens any file.

    A failure of standard output is reported at the end; the command has failed if part of its result was lost. A
    broken pipe is not reported.
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
def nonessential_output() -> Iterator[None]:
    """Mark output in the block as non-essential: failing to write it does not fail the command."""
    previous, _Output.is_nonessential = _Output.is_nonessential, True
    try:
        yield
    finally:
        _Output.is_nonessential = previous


def _fill_closed() -> None:
    """Open /dev/null for closed standard descriptors, inherited by child processes.

    Otherwise the next opened file would get such a descriptor, and receive what libraries write to stderr.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
            os.set_inheritable(descriptor, True)


def _text(raw: _Output, previous: Any) -> io.TextIOWrapper:
    """Return a text stream configured like the previous one, but escaping characters that it cannot encode."""
    line_buffering = previous is not None and (previous.line_buffering or previous.write_through)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), _encoding(previous), errors="backslashreplace", line_buffering=line_buffering
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
