"""Limits on memory and CPU time that control groups (cgroups, version 1, 2 or both at once) set for this process.

A limit holds for all groups below it, so those of every group from the process's own up to the root count: a container
in a systemd slice, or a step in a Slurm job, is often limited further up than where it is.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_MEMBERSHIP, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Beyond `memory.high` the kernel slows a process down until it fits; beyond `memory.max` it ends it.
_MEMORY_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
_MEMORY_USED = ("memory.current", "memory.usage_in_bytes")
# Page cache that makes room when it is needed. Version 1 counts that of the groups below under names of its own.
_FILE_CACHE = (("active_file", "inactive_file"), ("total_active_file", "total_inactive_file"))


def memory_free_bytes() -> int | None:
    """Memory in bytes that the tightest limit leaves, page cache counted as free; None without a limit."""
    free = [free for group in _groups("memory") if (free := _free_bytes(group)) is not None]
    return min(free, default=None)


def cpu_quota() -> float | None:
    """CPUs that the tightest quota gives time of, e.g. 1.5; None without a quota."""
    quotas = [quota for group in _groups("cpu") if (quota := _quota(group)) is not None]
    return min(quotas, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the groups that this process is in, from its own up to the root, some of which may not exist.

    Inside a container the path is often that on the host, which cannot be seen; then the container's is the root.
    """
    try:
        # A group's name may hold all bytes but the line feed.
        lines = os.fsdecode(_MEMBERSHIP.read_bytes()).split("\n")
    except OSError:  # not Linux
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        if controllers == "":  # version 2; beside version 1 it is mounted below `unified`
            tops = [_ROOT, _ROOT / "unified"]
        elif controller in controllers.split(","):
            tops = [_ROOT / controller, _ROOT / controllers]
        else:
            continue
        names = [name for name in path.split("/") if name]
        if ".." in names:  # outside of what a cgroup namespace shows
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
    words = _text(group / "cpu.max").split() or [
        word for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us") for word in _text(group / name).split()
    ]
    if len(words) != 2 or not all(word.isdigit() and int(word) for word in words):  # `max`, or -1: no quota
        return None
    return int(words[0]) / int(words[1])


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None  # `max`: no limit


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
