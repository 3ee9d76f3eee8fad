"""How many CPUs and how much memory this process may use, and errors that say there was too little memory."""

import math
import os

import psutil

from srshards.process import cgroups

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "alloc failed")


def available_cpus() -> int:
    """CPUs within the process's affinity and the CPU quotas of its cgroups, rounded up; at least 1."""
    # macOS has no affinity.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroups.cpu_quota()
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def available_memory_bytes() -> int:
    """Memory that can be used without swapping, in bytes, within the limits of the process's cgroups."""
    available = int(psutil.virtual_memory().available)
    limited = cgroups.memory_free_bytes()
    return available if limited is None else min(available, limited)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation failed for want of memory, in whatever words the device has for it."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)
