"""How much memory there is."""

from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def available_memory_bytes() -> int:
    """What can be used without swapping, within the container's (cgroup v1 or v2) limit."""
    available = int(psutil.virtual_memory().available)
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is no such limit, or it is the word `max`
            available = min(available, int(path.read_text()))
    return available
