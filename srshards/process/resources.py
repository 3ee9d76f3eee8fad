"""The number of CPUs and the amount of memory that this process may use."""

import math
import os

import psutil

from srshards.process import cgroups


def available_cpus() -> int:
    """Return the number of CPUs within the process's affinity and its cgroups' quotas, rounded up; at least 1."""
    # macOS has no CPU affinity.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroups.cpu_quota()
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def available_memory_bytes() -> int:
    """Return the memory available without swapping, in bytes, within the limits of the process's cgroups."""
    available = int(psutil.virtual_memory().available)
    limited = cgroups.memory_free_bytes()
    return available if limited is None else min(available, limited)
