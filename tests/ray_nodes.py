"""What tests of the Ray engine share: nodes of a real cluster on this machine, and their end."""

import contextlib
import signal
import tempfile
from collections.abc import Iterator
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


def on_cluster(cluster: Any, photos: object, output: object, *args: object) -> tuple[object, ...]:
    """The words of a run on the cluster."""
    words = ("generate", "-i", photos, "-o", output, "--auto")
    return (*words, "--engine", "ray", "--ray-address", cluster.address, *args)


def workers(node: Any) -> list[psutil.Process]:
    """Processes of a node that are making a shard: Ray calls them by its name."""
    found = []
    for child in psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.cmdline()[:1] and child.cmdline()[0].startswith(("ray::train-", "ray::val-")):
                found.append(child)
    return found


def kill_node(cluster: Any, node: Any) -> None:
    """All of a node's processes die at the same moment."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.remove_node(node, allow_graceful=False)
