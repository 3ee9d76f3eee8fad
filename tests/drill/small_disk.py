"""A disk that gets full at a moment of one's choosing: a tmpfs that nobody else sees."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "200m"
_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000  # linux/sched.h
FILLER = "filler"


def own_mounts() -> None:
    """From now on this process and its children have mounts of their own. OSError where that is not permitted."""
    user, is_root = os.geteuid(), os.geteuid() == 0
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS if is_root else _NEW_MOUNTS | _NEW_USER):
        raise OSError(ctypes.get_errno(), "no mounts of one's own can be had (unshare)")
    if not is_root:
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@contextmanager
def mounted(disk: Path) -> Iterator[None]:
    """A new disk, which is gone afterwards."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path, left: int) -> None:
    """Leave `left` bytes."""
    with open(disk / FILLER, "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 20))
        except OSError:
            pass
        filler.truncate(max(0, filler.tell() - left))
