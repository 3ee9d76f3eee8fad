"""Kill a node of a Ray cluster with all its processes at a random moment of `generate --engine ray`."""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from typing import Any

import psutil

from tests.drill import commands
from tests.drill.commands import Result, wait_until
from tests.drill.folders import differences, hashes, make_photos, partial_files
from tests.drill.session import Session

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
_ARGS = ("-s", 2, 3, "--size", 256, "--shard-bytes", "3MB", "--auto", "-o")


def kill_nodes(session: Session) -> None:
    """Keep a head without CPUs and one node; kill and replace the other node in every case."""
    generate = ("shardgen", "generate", "-i", make_photos(session.scratch / "photos", 90, (300, 400)), *_ARGS)
    commands.run(*generate, session.scratch / "whole").check()
    undisturbed = hashes(session.scratch / "whole")
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # paths of sockets are short
        os.environ.update(RAY_TMPDIR=folder, RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=str(commands.ROOT))
        os.environ.pop("RAY_ADDRESS", None)
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
        try:
            cluster.add_node(**NODE)
            output, run_s = session.scratch / "out", 2.0  # of the previous run, from its first file
            command = (*generate, output, "--engine", "ray", "--ray-address", cluster.address)
            for _ in session.cases():
                victim = cluster.add_node(**NODE)
                process = commands.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                wait_until(lambda: any(output.rglob("*.tmp")), process.poll)
                start_s = time.monotonic()
                time.sleep(session.rng.random() * run_s)
                kill_node(cluster, victim)
                out, err = process.communicate(timeout=commands.TIMEOUT_S)
                run_s = time.monotonic() - start_s
                problems = partial_files(output, undisturbed)
                problems += Result(process.returncode, out, err).problems_unless_success()
                session.finish("recovered", problems or differences(output, undisturbed))
                shutil.rmtree(output, ignore_errors=True)
        finally:
            cluster.shutdown()


def kill_node(cluster: Any, node: Any) -> None:
    """Kill all processes of a node at once, and remove it from the cluster."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.remove_node(node, allow_graceful=False)
