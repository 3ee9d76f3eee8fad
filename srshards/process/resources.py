"""How many CPUs and how much memory this process may use, and errors that say there was too little memory."""

from contextlib import suppress
from pathlib import Path

import psutil
from loky import cpu_count

_CGROUP = Path("/sys/fs/cgroup")
# Of version 2 and version 1: the limit, and what of it is used, file cache that would make room included.
_LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "alloc failed")


def available_cpus() -> int:
    """CPUs within the process's affinity and its container's (cgroup v1 or v2) limit; at least 1."""
    return int(cpu_count())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation failed for want of memory, in whatever words the device has for it."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def available_memory_bytes() -> int:
    """What can be used without swapping, within the container's (cgroup v1 or v2) limit."""
    available = int(psutil.virtual_memory().available)
    for limit, used in _LIMITS:
        with suppress(OSError, ValueError):  # there is no such limit, or it is the word `max`
            free = int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text())
            available = min(available, free + _file_cache_bytes((_CGROUP / limit).with_name("memory.stat")))
    return max(0, available)


def _file_cache_bytes(stat: Path) -> int:
    lines = (line.split() for line in stat.read_text().splitlines())
    return sum(int(count) for name, count in lines if name in ("inactive_file", "active_file"))
