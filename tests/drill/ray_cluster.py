"""Ray clusters of several nodes on this machine."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from tests.drill.commands import ROOT

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


@contextlib.contextmanager
def ray_environment() -> Iterator[Path]:
    """Set the environment variables of Ray, and yield the folder of its sockets and records of local clusters."""
    on_terminate = signal.getsignal(signal.SIGTERM)
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # socket paths must be short
        variables = {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
        with mock.patch.dict(os.environ, {**variables, "RAY_raylet_start_wait_time_s": "100"}):
            os.environ.pop("RAY_ADDRESS", None)
            try:
                yield Path(folder)
            finally:
                signal.signal(signal.SIGTERM, on_terminate)  # Ray has installed its own handler


@contextlib.contextmanager
def ray_cluster(num_nodes: int) -> Iterator[Any]:
    """Start a cluster of a head without CPUs and of nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(num_nodes):
            cluster.add_node(**NODE)
        yield cluster
    finally:
        cluster.shutdown()


def on_cluster(cluster: Any, photos: object, output: object, *args: object) -> tuple[object, ...]:
    """Return the arguments of a `generate` that runs on the cluster."""
    engine = ("--engine", "ray", "--ray-address", cluster.address)
    return ("generate", "-i", photos, "-o", output, "--auto", *engine, *args)


def workers(node: Any) -> list[psutil.Process]:
    """Return the processes of a node that are building a shard; Ray sets their name to that of the shard."""
    found = []
    for child in _raylet(node).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.cmdline()[:1] and child.cmdline()[0].startswith(("ray::train-", "ray::val-")):
                found.append(child)
    return found


def kill_node(cluster: Any, node: Any) -> None:
    """Kill all processes of a node at once, and remove it from the cluster."""
    raylet = _raylet(node)
    for process in [raylet, *raylet.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.remove_node(node, allow_graceful=False)


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)
