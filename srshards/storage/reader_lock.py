"""Shared locks on shard folders, so that a run of shardgen does not replace shards that another process has open."""

import errno
import fcntl
import os
import weakref
from contextlib import suppress

from srshards.format import Address
from srshards.storage.store import local_path, storage_of

_HELD = (errno.EWOULDBLOCK, errno.EACCES)


class ReaderLock:
    """A shared lock on a folder, released with this object or its process.

    The lock is on the folder itself: no file is created, a read-only folder suffices, and replacing files does not
    release it. Object stores and file systems without locks on folders (NFS) are not locked.
    """

    def __init__(self, folder: Address) -> None:
        if not storage_of(folder).is_local:
            return
        with suppress(OSError):
            descriptor = os.open(local_path(folder), os.O_RDONLY | os.O_DIRECTORY)
            weakref.finalize(self, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def has_readers(folder: Address) -> bool:
    """Return whether any process holds a `ReaderLock` on the folder."""
    if not storage_of(folder).is_local:
        return False
    try:
        descriptor = os.open(local_path(folder), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # other errors: a file system without locks
        return error.errno in _HELD
    finally:
        os.close(descriptor)
    return False
