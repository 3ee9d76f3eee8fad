"""Limits on memory and CPU time set for this process by control groups (cgroups version 1, 2 or both).

A limit applies to all groups below it, so every group from the process's own up to the root counts: a container in a
systemd slice, or a step of a Slurm job, is often limited by an ancestor.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_MEMBERSHIP, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# The kernel throttles a process above `memory.high`, and kills it above `memory.max`.
_MEMORY_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
_MEMORY_USED = ("memory.current", "memory.usage_in_bytes")
# Reclaimable page cache. Version 1 has separate names for the totals including child groups.
_FILE_CACHE = (("active_file", "inactive_file"), ("total_active_file", "total_inactive_file"))


def memory_free_bytes() -> int | None:
    """Return the memory left by the tightest limit in bytes, counting page cache as free; None without a limit."""
    free = [free for group in _groups("memory") if (free := _free_bytes(group)) is not None]
    return min(free, default=None)


def cpu_quota() -> float | None:
    """Return the number of CPUs allowed by the tightest quota, e.g. 1.5; None without a quota."""
    quotas = [quota for group in _groups("cpu") if (quota := _quota(group)) is not None]
    return min(quotas, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the groups that this process is in, from its own up to the root; some may not exist.

    In a container the path is often that on the host, which is not visible; its own group is then the root.
    """
    try:
        # A group's name may contain any byte but the line feed.
        lines = os.fsdecode(_MEMBERSHIP.read_bytes()).split("\n")
    except OSError:  # not Linux
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        if controllers == "":  # version 2; together with version 1 it is mounted at `unified`
            tops = [_ROOT, _ROOT / "unified"]
        elif controller in controllers.split(","):
            tops = [_ROOT / controller, _ROOT / controllers]
        else:
            continue
        names = [name for name in path.split("/") if name]
        if ".." in names:  # outside the cgroup namespace
            names = []
        for top in tops:
            yield from (top.joinpath(*names[:depth]) for depth in range(len(names), -1, -1))


def _free_bytes(group: Path) -> int | None:
    limits = [limit for name in _MEMORY_LIMITS if (limit := _number(group / name)) is not None]
    used = next((used for name in _MEMORY_USED if (used := _number(group / name)) is not None), None)
    if not limits or used is None:
        return None
    return max(0, min(limits) - used + _file_cache_bytes(group))


def _file_cache_bytes(group: Path) -> int:
    lines = (line.split() for line in _text(group / "memory.stat").splitlines())
    counts = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
    return max(sum(counts.get(name, 0) for name in names) for names in _FILE_CACHE)


def _quota(group: Path) -> float | None:
    values = _text(group / "cpu.max").split() or [
        value for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us") for value in _text(group / name).split()
    ]
    if len(values) != 2 or not all(value.isdigit() and int(value) for value in values):  # `max`, or -1: no quota
        return None
    return int(values[0]) / int(values[1])


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None  # `max`: no limit


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
