"""The lock of an output folder: at most one run writes to it, and readers can tell whether one does."""

from __future__ import annotations  # `Address` is a string at run time

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
_TIMEOUT_S = 0.5  # `busy_message` holds the lock for microseconds
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def locked(output: Address) -> Iterator[None]:
    """Lock the output folder for this process, check that it is writable, and remove temporary files of killed runs.

    For an output in a store, the lock excludes only other runs of this user on this machine.
    """
    storage = storage_of(output)
    lock = filelock.FileLock(_lock_path(output), timeout=_TIMEOUT_S)
    try:
        storage.ensure_writable(output)
        lock.acquire()
        os.utime(lock.lock_file)  # so that `last_run` changes
    except filelock.Timeout:
        raise UsageError(
            f"another shardgen run is writing to {output}; wait until it has finished, or pass another folder"
        ) from None
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise UsageError(f"cannot write to {output}: {reason}; pass another folder") from error
    try:
        storage.remove_unfinished([output, *(output / scale_folder(n) for n in range(MIN_SCALE, MAX_SCALE + 1))])
        yield
    except OSError as error:
        raise RunError(f"cannot write to {storage.written_to(output)}: {error}. Finished shards are kept.") from error
    finally:
        lock.release()


def output_of(folder: Address) -> Address:
    """Return the output folder that contains a scale's folder, even if that is given as `.`."""
    absolute: Address = storage_of(folder).absolute(folder)
    return absolute.parent


def busy_message(folder: Address) -> str | None:
    """Return a message if a run on this machine is writing to `folder` or its parent; else None.

    The check does not block runs, and creates no file.
    """
    return next((_busy_message(output) for output in (folder, output_of(folder)) if _is_held(output)), None)


def last_run(output: Address) -> int:
    """Return the start time of the last run in ns, 0 if unknown. UsageError while a run is writing."""
    if _is_held(output):
        raise UsageError(_busy_message(output))
    try:
        return _lock_path(output).stat().st_mtime_ns
    except (OSError, RunError):
        return 0


def _busy_message(output: Address) -> str:
    return f"a shardgen run is writing to {output}; wait until it has finished"


def _is_held(output: Address) -> bool:
    try:
        descriptor = os.open(_lock_path(output), os.O_RDONLY)
    except (OSError, RunError) as error:  # no run so far
        if shortage(error):
            raise
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:  # any other error: a file system without locks
        return error.errno in _HELD
    finally:
        os.close(descriptor)
    return False


def _lock_path(output: Address) -> Path:
    return storage_of(output).lock_path(output, _LOCK_NAME)
