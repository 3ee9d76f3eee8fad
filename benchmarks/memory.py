"""Peak memory of a command and of every process that it starts.

A process's peak resident set is VmHWM in /proc, which the kernel maintains: sampling every few milliseconds misses a
peak only when it occurs after the last sample. Resident memory counts shared pages (library code) in every process.
`uss`, the memory private to a process, does not, but the kernel does not record its peak: the largest sample is
reported.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import psutil

from benchmarks.common import REPOSITORY, RunFailedError

_SAMPLE_EVERY_S = 0.02


@dataclass(frozen=True)
class PeakMemory:
    """Bytes of the command's first process, and of its largest child process."""

    parent_rss: int
    child_rss: int
    child_uss: int


def watch_memory(args: Sequence[str]) -> PeakMemory:
    """Run a command and return its peak memory. RunFailedError unless it exits with 0."""
    with subprocess.Popen(args, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        peak = PeakMemory(0, 0, 0)
        try:
            while process.poll() is None:
                peak = _sample(process.pid, peak)
                sleep(_SAMPLE_EVERY_S)
        finally:
            process.kill()
    if process.returncode != 0:
        raise RunFailedError(f"exit code {process.returncode}: {' '.join(args)}")
    return peak


def _sample(pid: int, peak: PeakMemory) -> PeakMemory:
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return peak
    return PeakMemory(
        max(peak.parent_rss, _peak_rss(pid)),
        max([peak.child_rss, *(_peak_rss(child.pid) for child in children)]),
        max([peak.child_uss, *(_uss(child) for child in children)]),
    )


def _peak_rss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # the process has exited
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _uss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:
        return 0
