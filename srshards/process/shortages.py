"""Recognise errors caused by exhausted resources: memory, open files, threads, or a deleted working directory.

Such an error does not mean that the photo, shard or weights file being read is damaged.
Standard library only, so that importing it is cheap.
"""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_RESERVED_FILES = 8  # open while workers run: photos, shards, outputs
_HOST_OUT_OF_MEMORY = ("insufficient memory", "can't allocate memory")  # OpenCV; PyTorch on a CPU
# Messages of computations. Image decoders use them for damaged headers too, so `shortage` ignores them.
_DEVICE_OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "alloc_failed",
    "alloc failed",
    "allocation_failed",
    "unable to find an engine",  # cuDNN, when no algorithm's workspace fits
)
# The new working directory of a process whose own was deleted: not even root can create files there.
_NOWHERE = "/proc" if os.path.exists("/proc/self") else "/"


def shortage(error: BaseException) -> str | None:
    """Return which resource is exhausted and what to do; None for any other kind of error."""
    if _is_memory_error(error, _HOST_OUT_OF_MEMORY):
        return (
            "out of memory; use fewer workers, smaller images or batches, or raise the limit (`ulimit -v`, or that "
            "of the container)"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return (
            "cannot start more threads; use fewer workers, or raise the limits on processes and memory "
            "(`ulimit -u`, `ulimit -v`)"
        )
    return _too_many_files(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a computation ran out of memory, on the CPU or any other device."""
    return _is_memory_error(error, _HOST_OUT_OF_MEMORY + _DEVICE_OUT_OF_MEMORY)


def reason_of(error: BaseException) -> str | None:
    """Return the message for an otherwise unhandled error; None if it is a bug of the program.

    Expected errors are shortages and OSErrors: missing permissions, disk errors, names that are too long.
    """
    reason = shortage(error) or (isinstance(error, OSError) and (error.strerror or str(error)))
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    return f"{where}{reason}" if reason else None


def explained(message: str, error: BaseException) -> str:
    """Return an error's message, extended if too many open files or a deleted working directory may be the cause."""
    sentences = [message]
    if reason := next(filter(None, map(_too_many_files, _causes(error))), None):
        sentences.append(reason.capitalize())
    if _cwd_is_deleted():
        sentences.append("The working directory has been deleted; change to another, or pass absolute paths only")
    return sentences[0] if len(sentences) == 1 else ". ".join(one.removesuffix(".") for one in sentences)


def leave_deleted_folder() -> None:
    """Change the working directory if it was deleted: neither workers nor PyTorch start in a deleted one.

    Relative paths stay unusable.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir(_NOWHERE)


@contextmanager
def signals_ignored_by_children(*numbers: signal.Signals) -> Iterator[None]:
    """Make processes started in the block ignore these signals; this process receives them after the block."""
    handlers = {number: signal.getsignal(number) for number in numbers}
    # Block first: a blocked signal stays pending, but one that is ignored on arrival is lost.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def too_many_workers(workers: int, files_each: int, option: str = "--workers") -> str | None:
    """Return an error message if the limit on open files is too low for `workers`; otherwise None.

    `files_each` is the number of descriptors per worker, `option` the user's option for the number of workers.
    """
    limit = _max_files()
    if limit == resource.RLIM_INFINITY:
        return None
    spare = limit - sum(int(number) < limit for number in os.listdir("/dev/fd")) - _RESERVED_FILES
    if workers * files_each <= spare:
        return None
    who = "1 worker needs" if workers == 1 else f"{workers} workers need"
    return (
        f"{who} more open files than this process's limit of {limit:,}; raise it (`ulimit -n`), or "
        f"pass {option} {max(0, spare // files_each)}"
    )


def _too_many_files(error: BaseException) -> str | None:
    if _errno(error) == errno.EMFILE:
        return (
            f"too many open files for this process's limit of {_max_files():,}; raise it (`ulimit -n`), or use fewer "
            "workers"
        )
    if _errno(error) == errno.ENFILE:
        return "too many open files on this machine; close other programs, or use fewer workers"
    return None


def _errno(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _is_memory_error(error: BaseException, wordings: tuple[str, ...]) -> bool:
    if isinstance(error, MemoryError) or _errno(error) == errno.ENOMEM:
        return True
    return any(wording in str(error).lower() for wording in wordings)


def _max_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _cwd_is_deleted() -> bool:
    try:
        current = os.getcwd()
    except FileNotFoundError:
        return True
    return current == _NOWHERE and os.environ.get("PWD") != _NOWHERE


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (cause := error.__cause__) is not None:
        yield cause
        error = cause
