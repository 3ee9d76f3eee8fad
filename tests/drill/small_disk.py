"""A small disk that can be filled: a tmpfs in a private mount namespace."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "200m"
_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000  # linux/sched.h
FILLER = "filler"


_libc = ctypes.CDLL(None, use_errno=True)


def unshare_mounts() -> None:
    """Move this process to a new mount namespace, which its children inherit. OSError where that is not permitted."""
    user, is_root = os.geteuid(), os.geteuid() == 0
    if _libc.unshare(_NEW_MOUNTS if is_root else _NEW_MOUNTS | _NEW_USER):
        raise OSError(ctypes.get_errno(), "cannot create a mount namespace (unshare)")
    if not is_root:
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def share_mounts(pid: int) -> None:
    """Move this process to the mount namespace of another one, of which it is no child."""
    for name in ("mnt",) if os.geteuid() == 0 else ("user", "mnt"):
        with open(f"/proc/{pid}/ns/{name}") as namespace:
            if _libc.setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), "cannot enter a mount namespace (setns)")


@contextmanager
def mounted(disk: Path) -> Iterator[None]:
    """Mount an empty disk, and unmount it at the end."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path, left: int) -> None:
    """Write a file that leaves `left` bytes of free space."""
    with open(disk / FILLER, "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 20))
        except OSError:
            pass
        filler.truncate(max(0, filler.tell() - left))
