"""Measurements for the tests of `bench_gpu`'s processes. Standard library only, so that these start at once."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any


def figures(value: int = 1) -> Iterator[dict[str, Any]]:
    yield {"first": value}
    yield {"pid": os.getpid()}


def fail() -> Iterator[dict[str, Any]]:
    yield {"first": 1}
    raise ValueError("no figure\nmore")


def run_out_of_memory() -> Iterator[dict[str, Any]]:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    yield


def hang() -> Iterator[dict[str, Any]]:
    """With a child process, as data workers are."""
    child = subprocess.Popen(["sleep", "600"])
    yield {"child": child.pid}
    time.sleep(600)


def die() -> Iterator[dict[str, Any]]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield {}


def end_the_benchmark() -> Iterator[dict[str, Any]]:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(600)
    yield {}
