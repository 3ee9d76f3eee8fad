"""One run at a time for an output folder, for as long as its process lives; and whether there is one."""

from __future__ import annotations  # Address is a name until UPath is loaded

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from srshards.errors import RunError, UsageError
from srshards.format import Address
from srshards.process.limits import shortage
from srshards.storage.files import remove_temporaries
from srshards.storage.scratch import scratch_root
from srshards.storage.store import remove, write_bytes

_LOCK_NAME = ".shardgen.lock"
_PROBE_NAME = ".shardgen.probe"
_PATIENCE_S = 0.5  # `being_written` may have the lock just now, for microseconds
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def locked(output: Address) -> Iterator[None]:
    """Hold the output folder for this process alone, for as long as it lives. Clears away what a killed run left.

    Stores know no locks that die with their owner, so one of this machine stands for an output in a store: it keeps
    other runs of this user here away, and none elsewhere. Whether the store can be written to is tried at once.
    """
    lock = filelock.FileLock(_lock_path(output), timeout=_PATIENCE_S)
    try:
        if isinstance(output, Path):
            output.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        os.utime(lock.lock_file)  # so that `last_run` changes
    except filelock.Timeout:
        raise UsageError(
            f"another shardgen run is writing to {output}. Wait until it has ended, or take another folder."
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write to {output}: {error.strerror}. Name another --output.") from error
    try:
        if isinstance(output, Path):
            for folder in (output, *output.glob("scale_*x")):
                remove_temporaries(folder)
        else:
            write_bytes(output / _PROBE_NAME, b"")
            remove(output / _PROBE_NAME)
        yield
    except OSError as error:
        place = output if isinstance(output, Path) else scratch_root()
        raise RunError(f"cannot write to {place}: {error}. Finished shards are kept.") from error
    finally:
        lock.release()


def output_of(scale_folder: Address) -> Address:
    """The output folder that a scale's folder is in, also where it is named `.`."""
    return Path(os.path.abspath(scale_folder)).parent if isinstance(scale_folder, Path) else scale_folder.parent


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
    if isinstance(output, Path):
        return output / _LOCK_NAME
    return scratch_root() / f"{hashlib.sha256(str(output).rstrip('/').encode()).hexdigest()[:16]}.lock"
