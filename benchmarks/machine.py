"""Describe the machine that a benchmark ran on."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from srshards.process.resources import available_cpus

_PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
    "simplejpeg",
    "isal",
    "torch",
    "sr-shards",
)


def describe_machine(scratch: Path) -> dict[str, Any]:
    """Return processor, memory, kernel, package versions, and the file system of the scratch folder."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": available_cpus(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": _versions(),
        "scratch_file_system": _file_system(scratch),
        "load_average_1_min": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _file_system(folder: Path) -> str:
    """Return the type of the folder's file system, e.g. ext4; `unknown` where the kernel does not list mounts."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    containing = [(point, kind) for point, kind in mounts if folder.is_relative_to(point.replace("\\040", " "))]
    # The longest mount point is the innermost; of equals the last was mounted over the others.
    return max(reversed(containing), key=lambda mount: len(mount[0]), default=("", "unknown"))[1]
