"""Local scratch folders for files to be uploaded. Those of killed processes are removed by later ones."""

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
    """Return this user's scratch folder in the temporary folder (TMPDIR). RunError when it cannot be created."""
    root = Path(tempfile.gettempdir()) / f"shardgen-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        status = root.lstat()
    except OSError as error:
        raise RunError(
            f"cannot create the scratch folder {root}: {error.strerror}; set TMPDIR to another folder"
        ) from error
    if root.is_symlink() or status.st_uid != os.getuid():  # /tmp is world-writable
        raise RunError(f"{root} belongs to another user; remove it, or set TMPDIR to another folder")
    return root


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder and remove it afterwards, after removing those of killed processes."""
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
    """Remove the scratch folders of this user's processes that have ended."""
    root = scratch_root()
    with filelock.FileLock(root / _LOCK_NAME):  # so that every existing folder of a live process is locked
        for folder in root.glob(f"{_PREFIX}*"):
            lock = filelock.FileLock(folder / _LOCK_NAME, timeout=0)
            with contextlib.suppress(OSError), lock:  # including filelock.Timeout: its process is alive
                shutil.rmtree(folder, ignore_errors=True)
