"""How many CPUs this process may really use."""

from loky import cpu_count


def available_cpus() -> int:
    """CPUs within the process's affinity and its container's (cgroup v1 or v2) limit; at least 1."""
    return int(cpu_count())
