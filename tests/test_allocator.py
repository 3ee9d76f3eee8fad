"""Memory that the C library keeps for reuse."""

import ctypes
import platform
import subprocess
import sys

import pytest

from srshards.process import allocator

_COUNT_FAULTS = """
import ctypes, resource
from srshards.process.allocator import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
keep_freed_memory()

def use(megabytes):
    block = libc.malloc(megabytes << 20)
    ctypes.memset(block, 1, megabytes << 20)
    libc.free(block)

for megabytes in (3, 20):
    use(megabytes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use(megabytes)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc")
@pytest.mark.parametrize(
    ("environment", "keeps"),
    [
        ({}, True),
        ({"MALLOC_ARENA_MAX": "1"}, True),
        ({"MALLOC_MMAP_THRESHOLD_": "1000000"}, False),
        ({"MALLOC_TRIM_THRESHOLD_": "1000000"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=1000000"}, False),
    ],
    ids=str,
)
def test_freed_memory_is_reused_without_page_faults(environment: dict[str, str], keeps: bool) -> None:
    process = subprocess.run(
        [sys.executable, "-c", _COUNT_FAULTS], env=environment, capture_output=True, text=True, check=True
    )
    assert all((int(faults) < 20) == keeps for faults in process.stdout.split()), process.stdout


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    allocator.keep_freed_memory()
