"""`make test-scale`: photos and shards in a store, a Ray cluster of four nodes, and a node dies again and again."""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import contract_files, generate, make_photos, running, wait_until
from ray.cluster_utils import Cluster
from ray_nodes import NODE, kill_node, on_cluster, ray_environment, workers

from tests.drill.s3_server import Bucket, S3Server, environment, fresh_bucket

NUM_PHOTOS, NUM_NODES, NUM_KILLS = 300, 4, 4
ARGS = ("-s", 2, 3, 4, "--size", 256, "--shard-bytes", "5MB")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), NUM_PHOTOS, size=(300, 400))


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the local engine makes."""
    output = tmp_path_factory.mktemp("undisturbed")
    generate(photos, output, *ARGS)
    return contract_files(output)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """In an environment that the nodes inherit: each needs to find the store by itself."""
    with S3Server() as server, fresh_bucket(server) as bucket, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(bucket.proxy.endpoint).items():
            patch.setenv(name, value)
        yield bucket


@pytest.fixture
def cluster(bucket: Bucket) -> Iterator[Any]:
    with ray_environment():
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(NUM_NODES):
                cluster.add_node(**NODE)
            yield cluster
        finally:
            cluster.shutdown()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("place", ["folder", "store"])
def test_nodes_die_again_and_again(
    place: str, cluster: Any, bucket: Bucket, photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    source, output = (
        (photos, tmp_path) if place == "folder" else (bucket.put_folder(photos, "p"), f"{bucket.address}/s")
    )

    def finished() -> int:
        return sum(bool(re.search(r"/(train|val)-\d+\.json$", f"/{name}")) for name in names())

    def names() -> list[str]:
        return [str(path) for path in tmp_path.rglob("*")] if place == "folder" else list(bucket.keys("s"))

    start = time.monotonic()
    lost = []
    with running(*on_cluster(cluster, source, output, *ARGS)) as process:
        for number in range(NUM_KILLS):
            due = len(undisturbed) // 2 * number // (NUM_KILLS + 2)
            wait_until(lambda due=due: finished() >= due, process)
            victim = wait_until(lambda: next((node for node in cluster.worker_nodes if workers(node)), None), process)
            lost += [worker.cmdline()[0] for worker in workers(victim)]
            kill_node(cluster, victim)
            cluster.add_node(**NODE)
        stdout, stderr = process.communicate(timeout=600)
    took = time.monotonic() - start
    assert process.returncode == 0, stderr
    if place == "folder":
        made = contract_files(tmp_path)
    else:
        objects = bucket.objects("s")
        made = {key: hashlib.sha256(objects[key]).hexdigest() for key in objects if key in undisturbed}
    assert made == undisturbed
    assert stderr.splitlines()[-1].startswith(f"{NUM_PHOTOS}/{NUM_PHOTOS} photos, ")
    assert not list(tmp_path.rglob("*.tmp"))
    print(
        f"\n{place}: {NUM_KILLS} nodes killed, {len(lost)} of them at work on {lost}; {took:.0f} s", os.linesep, stdout
    )
