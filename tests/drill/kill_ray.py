"""Kill a node of a Ray cluster with all its processes at a random moment of `generate --engine ray`."""

import shutil
import subprocess
import time

from tests.drill import commands
from tests.drill.commands import wait_until
from tests.drill.folders import differences, hashes, make_photos, partial_files
from tests.drill.ray_cluster import NODE, kill_node, on_cluster, ray_cluster, ray_environment
from tests.drill.session import Session

_ARGS = ("-s", 2, 3, "--size", 256, "--shard-bytes", "3MB")


def kill_nodes(session: Session) -> None:
    """Keep a head without CPUs and one node; kill and replace the other node in every case."""
    photos = make_photos(session.scratch / "photos", 90, (300, 400))
    output, whole = session.scratch / "out", session.scratch / "whole"
    commands.run("shardgen", "generate", "-i", photos, "-o", whole, "--auto", *_ARGS).check()
    undisturbed = hashes(whole)
    run_s = 2.0  # of the previous run, from its first file
    with ray_environment(), ray_cluster(1) as cluster:
        for _ in session.cases():
            victim = cluster.add_node(**NODE)
            args = on_cluster(cluster, photos, output, *_ARGS)
            process = commands.start("shardgen", *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_until(lambda: any(output.rglob("*.tmp")), process.poll)
            start_s = time.monotonic()
            time.sleep(session.rng.random() * run_s)
            kill_node(cluster, victim)
            result = commands.wait(process)
            run_s = time.monotonic() - start_s
            problems = partial_files(output, undisturbed) + result.problems_unless_success()
            session.finish("recovered", problems or differences(output, undisturbed))
            shutil.rmtree(output, ignore_errors=True)
