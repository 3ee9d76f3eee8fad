"""Settings of glibc's memory allocator."""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # in malloc.h
_MAX_TRIM_BYTES = 2**31 - 1  # of an int, the type of mallopt's argument
_MMAP_BYTES = (2**30, 2**25)  # the first that is accepted: older versions of glibc allow no more than 32 MiB
_SETTINGS = ("trim_threshold", "mmap_threshold", "mmap_max")


def keep_freed_memory() -> None:
    """Make this process reuse the memory of freed blocks up to 1 GiB instead of returning it to the kernel.

    For computations on a CPU that allocate and free the same large tensors again and again. By default, glibc maps
    each block above 32 MiB (at first: 128 KiB) anew, and returns the end of the heap when much of it is free. The
    kernel then has to clear each page again at its next use: 12,000 page faults in every training step of `ultra_lite`.
    Peak memory hardly changes, but memory is not returned before the process ends.

    Settings of the user (MALLOC_TRIM_THRESHOLD_, GLIBC_TUNABLES etc.) take precedence. Without effect on other C
    libraries, and on other allocators such as jemalloc.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if any(f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}=" in tunables for name in _SETTINGS):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return
    set_option(_M_TRIM_THRESHOLD, _MAX_TRIM_BYTES)
    for threshold in _MMAP_BYTES:
        if set_option(_M_MMAP_THRESHOLD, threshold):
            break
