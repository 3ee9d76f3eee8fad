"""Folders of this machine for what is not yet in a store. They go with their process, and after it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from srshards.errors import RunError

_LOCK_NAME = ".lock"
_PREFIX = "shard-"


def scratch_root() -> Path:
    """This user's folder for scratch in the system's folder for temporary files (TMPDIR). RunError without one."""
    root = Path(tempfile.gettempdir()) / f"shardgen-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        status = root.lstat()
    except OSError as error:
        raise RunError(
            f"cannot make scratch space in {root}: {error.strerror}. Set TMPDIR to another folder."
        ) from error
    if root.is_symlink() or status.st_uid != os.getuid():  # anyone may write to /tmp
        raise RunError(f"{root} belongs to somebody else. Remove it, or set TMPDIR to another folder.")
    return root


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A fresh folder, which goes afterwards. Those of processes that were killed go before."""
    clear_scratch()
    root = scratch_root()
    with filelock.FileLock(root / _LOCK_NAME):
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        lock = filelock.FileLock(folder / _LOCK_NAME)
        lock.acquire()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def clear_scratch() -> None:
    """Remove the scratch folders of this user's processes that are no more."""
    root = scratch_root()
    with filelock.FileLock(root / _LOCK_NAME):  # nobody has made a folder and does not hold its lock yet
        for folder in root.glob(f"{_PREFIX}*"):
            lock = filelock.FileLock(folder / _LOCK_NAME, timeout=0)
            with contextlib.suppress(OSError), lock:  # filelock.Timeout is one: its process lives
                shutil.rmtree(folder, ignore_errors=True)
