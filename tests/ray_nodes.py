"""What tests of the Ray engine share: nodes of a real cluster on this machine, and their end."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import PATIENCE_S

ROOT = Path(__file__).parent.parent
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


@contextlib.contextmanager
def ray_environment() -> Iterator[Path]:
    """Where Ray keeps its sockets (whose names must be short) and what it knows of clusters on this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as m,
    ):
        m.setenv("RAY_TMPDIR", folder)
        m.setenv("RAY_USAGE_STATS_ENABLED", "0")
        m.setenv("RAY_raylet_start_wait_time_s", str(int(PATIENCE_S)))
        m.setenv("PYTHONPATH", str(ROOT))
        m.delenv("RAY_ADDRESS", raising=False)
        on_terminate = signal.getsignal(signal.SIGTERM)
        try:
            yield Path(folder)
        finally:
            signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own there


@contextlib.contextmanager
def running(cluster: Any, photos: object, output: object, *args: object) -> Iterator[subprocess.Popen[str]]:
    """A run of its own process group, killed at the end if it is still there."""
    command = [sys.executable, "-m", "shardgen", "generate", "-i", photos, "-o", output, "--auto"]
    command += ["--engine", "ray", "--ray-address", cluster.address, *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([str(word) for word in command], **pipes, text=True, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert process is None or process.poll() is None, f"ended before its time: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return value


def workers(node: Any) -> list[psutil.Process]:
    """Processes of a node that are making a shard: Ray calls them by its name."""
    found = []
    for child in psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.cmdline()[:1] and child.cmdline()[0].startswith(("ray::train-", "ray::val-")):
                found.append(child)
    return found


def temporaries(output: Path) -> list[Path]:
    return [path for path in output.rglob("*.tmp") if path.parent != output]


def markers(output: Path) -> list[Path]:
    return [*output.glob("scale_*/train-*.json"), *output.glob("scale_*/val-*.json")]


def kill_node(cluster: Any, node: Any) -> None:
    """All of a node's processes die at the same moment."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.remove_node(node, allow_graceful=False)
