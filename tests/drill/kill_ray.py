"""A node of a Ray cluster dies at a random moment of `generate --engine ray`, with all its processes."""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.drill import commands
from tests.drill.commands import Done
from tests.drill.folders import differences, hashes, make_photos, unfinished
from tests.drill.session import Session

_NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
_WORDS = ("-s", 2, 3, "--size", 256, "--shard-bytes", "3MB", "--auto")


def kill_nodes(session: Session) -> None:
    """A head without CPUs and one node stay; the other node is killed and replaced, case after case."""
    photos = make_photos(session.scratch / "photos", 90, (300, 400))
    local = commands.run("shardgen", "generate", "-i", photos, "-o", session.scratch / "whole", *_WORDS)
    assert local.code == 0, local.err
    undisturbed = hashes(session.scratch / "whole")
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # sockets want short names
        os.environ.update(RAY_TMPDIR=folder, RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=str(commands.ROOT))
        os.environ.pop("RAY_ADDRESS", None)
        from ray.cluster_utils import Cluster

        head = {**_NODE, "num_cpus": 0, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            cluster.add_node(**_NODE)
            seconds = 0.0
            for _ in session.cases():
                seconds = _kill_one(session, cluster, photos, undisturbed, seconds)
                shutil.rmtree(session.scratch / "out", ignore_errors=True)
        finally:
            cluster.shutdown()


def _kill_one(session: Session, cluster: Any, photos: Path, undisturbed: dict[str, str], seconds: float) -> float:
    """One case. Returns how long the run took after its first file, to choose the next moment by."""
    victim, output = cluster.add_node(**_NODE), session.scratch / "out"
    words = ("generate", "-i", photos, "-o", output, "--engine", "ray", "--ray-address", cluster.address, *_WORDS)
    process = commands.start("shardgen", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list(output.rglob("*.tmp")) and process.poll() is None:
        time.sleep(0.01)
    start_s = time.monotonic()
    time.sleep(session.rng.random() * (seconds or 2.0))
    raylet = psutil.Process(victim.all_processes["raylet"][0].process.pid)
    for each in [raylet, *raylet.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    cluster.remove_node(victim, allow_graceful=False)
    out, err = process.communicate(timeout=commands.TIMEOUT_S)
    done = Done(process.returncode, out, err)
    problems = unfinished(output, undisturbed)
    if done.code or done.crash:
        problems.append(("crashed", f"{done.crash or done}"))
    session.ended("recovered", problems or differences(output, undisturbed))
    return time.monotonic() - start_s
