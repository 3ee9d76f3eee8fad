"""One run at a time for an output folder, for as long as its process lives; and whether there is one."""

from __future__ import annotations  # Address is a name until UPath is loaded

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from srshards.errors import RunError, UsageError
from srshards.format import MAX_SCALE, MIN_SCALE, Address, scale_folder
from srshards.process.shortages import shortage
from srshards.storage.store import storage_of

_LOCK_NAME = ".shardgen.lock"
_PATIENCE_S = 0.5  # `being_written` may have the lock just now, for microseconds
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def locked(output: Address) -> Iterator[None]:
    """Hold the output folder for this process alone, for as long as it lives. Clears away what a killed run left.

    Of an output in a store, it keeps other runs of this user on this machine away, and none elsewhere. Whether it can
    be written to is tried at once.
    """
    storage = storage_of(output)
    lock = filelock.FileLock(_lock_path(output), timeout=_PATIENCE_S)
    try:
        storage.ensure_writable(output)
        lock.acquire()
        os.utime(lock.lock_file)  # so that `last_run` changes
    except filelock.Timeout:
        raise UsageError(
            f"another shardgen run is writing to {output}. Wait until it has ended, or take another folder."
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write to {output}: {error.strerror}. Name another --output.") from error
    try:
        storage.remove_unfinished([output, *(output / scale_folder(n) for n in range(MIN_SCALE, MAX_SCALE + 1))])
        yield
    except OSError as error:
        raise RunError(f"cannot write to {storage.written_to(output)}: {error}. Finished shards are kept.") from error
    finally:
        lock.release()


def output_of(folder: Address) -> Address:
    """The output folder that a scale's folder is in, also where it is named `.`."""
    here: Address = storage_of(folder).absolute(folder)
    return here.parent


def being_written(folder: Address) -> Address | None:
    """The output that a run on this machine writes to at present: `folder`, or the one that it is in; else None.

    No run is kept away by the question, and nothing is left behind.
    """
    return next((output for output in (folder, output_of(folder)) if _is_held(output)), None)


def wait_for(output: Address) -> str:
    """What to tell somebody who wants to read what is being written."""
    return f"a shardgen run is writing to {output}: wait until it has ended"


def last_run(output: Address) -> int:
    """The time in ns at which the last run began to write there, 0 if none is known. UsageError while it is writing."""
    if _is_held(output):
        raise UsageError(wait_for(output))
    try:
        return _lock_path(output).stat().st_mtime_ns
    except (OSError, RunError):
        return 0


def _is_held(output: Address) -> bool:
    try:
        descriptor = os.open(_lock_path(output), os.O_RDONLY)
    except (OSError, RunError) as error:  # there has been no run
        if shortage(error):
            raise
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:  # others: a file system without locks
        return error.errno in _HELD
    finally:
        os.close(descriptor)
    return False


def _lock_path(output: Address) -> Path:
    return storage_of(output).lock_path(output, _LOCK_NAME)
