"""What this process depends on: how many files it may open, how much memory there is, its working directory.

An error that comes from there says nothing about the file at hand: no photo, shard or weights count as damaged for it.
Standard library only, so that it costs nothing to import first of all.
"""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_OTHER_FILES = 8  # that are open while workers live: photos, shards, what is written
_OUT_OF_MEMORY = ("Insufficient memory", "can't allocate memory")  # as OpenCV and PyTorch say it
# Where a process goes whose working directory is gone: nobody can make a file there, root included.
_NOWHERE = "/proc" if os.path.exists("/proc/self") else "/"


def shortage(error: BaseException) -> str | None:
    """What this process, or the machine, has run out of, and what to do; None for an error of any other kind."""
    if _is_out_of_memory(error):
        return (
            "out of memory: take fewer workers, smaller images or batches, or raise the limit (`ulimit -v`, or that "
            "of the container)"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return (
            "no more threads can be started: take fewer workers, or raise the limits on processes and memory "
            "(`ulimit -u`, `ulimit -v`)"
        )
    return _too_many_files(error)


def reason_of(error: BaseException) -> str | None:
    """What to say of an error that nothing else has explained; None for a fault of the program.

    It is a shortage, or a file that may not be read, a disk that fails, or a name that is too long.
    """
    said = shortage(error) or (isinstance(error, OSError) and (error.strerror or str(error)))
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    return f"{where}{said}" if said else None


def explained(message: str, error: BaseException) -> str:
    """An error's message, and what too many open files or a deleted working directory have to do with it."""
    sentences = [message]
    if said := next(filter(None, map(_too_many_files, _causes(error))), None):
        sentences.append(said.capitalize())
    if _is_nowhere():
        sentences.append("The working directory has been deleted: change to another, or give absolute paths only")
    return sentences[0] if len(sentences) == 1 else ". ".join(one.removesuffix(".") for one in sentences)


def leave_deleted_folder() -> None:
    """Do without a working directory that has been deleted: neither workers nor PyTorch start in one.

    Relative paths lead nowhere afterwards, as they did before.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir(_NOWHERE)


@contextmanager
def signals_ignored_by_children(*numbers: signal.Signals) -> Iterator[None]:
    """Processes that are started inside ignore these signals. Those that this one gets meanwhile come afterwards."""
    handlers = {number: signal.getsignal(number) for number in numbers}
    # A signal that is blocked is kept, unless it is ignored already when it comes: hence in this order.
    former = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def too_many_workers(workers: int, files_each: int, option: str = "--workers") -> str | None:
    """Why so many cannot be started, when this process may not open the files that it needs to talk to them.

    `option` is what the user sets their number with.
    """
    limit = _max_files()
    if limit == resource.RLIM_INFINITY:
        return None
    spare = limit - sum(int(number) < limit for number in os.listdir("/dev/fd")) - _OTHER_FILES
    if workers * files_each <= spare:
        return None
    return (
        f"{workers} workers need more open files than the {limit:,} that this process may have: raise that limit "
        f"(`ulimit -n`), or take {option} {max(0, spare // files_each)}"
    )


def _too_many_files(error: BaseException) -> str | None:
    if _number(error) == errno.EMFILE:
        return (
            f"too many open files: this process may have {_max_files():,}; raise that limit (`ulimit -n`), or take "
            "fewer workers"
        )
    if _number(error) == errno.ENFILE:
        return "too many open files on this machine: end other programs, or take fewer workers"
    return None


def _number(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _is_out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, MemoryError) or _number(error) == errno.ENOMEM
    return known or any(words in str(error) for words in _OUT_OF_MEMORY)


def _max_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _is_nowhere() -> bool:
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return True
    return here == _NOWHERE and os.environ.get("PWD") != _NOWHERE


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (cause := error.__cause__) is not None:
        yield cause
        error = cause
