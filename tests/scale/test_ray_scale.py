"""`make test-scale`: a Ray cluster of four nodes that are killed repeatedly; data in a folder and in a store."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import contract_files, generate, make_photos, running, wait_until

from tests.drill.ray_cluster import NODE, kill_node, on_cluster, ray_cluster, ray_environment, workers
from tests.drill.s3_server import Bucket, S3Server, environment, fresh_bucket

NUM_PHOTOS, NUM_NODES, NUM_KILLS = 300, 4, 4
ARGS = ("-s", 2, 3, 4, "--size", 256, "--shard-bytes", "5MB")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), NUM_PHOTOS, size=(300, 400))


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that the local engine generates."""
    output = tmp_path_factory.mktemp("undisturbed")
    generate(photos, output, *ARGS)
    return contract_files(output)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """A bucket whose environment variables the nodes inherit, because each of them connects to the store."""
    with S3Server() as server, fresh_bucket(server) as bucket, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(bucket.proxy.endpoint).items():
            patch.setenv(name, value)
        yield bucket


@pytest.fixture
def cluster(bucket: Bucket) -> Iterator[Any]:
    with ray_environment(), ray_cluster(NUM_NODES) as cluster:
        yield cluster


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("storage", ["folder", "store"])
def test_killing_nodes_repeatedly_does_not_change_the_output(
    storage: str, cluster: Any, bucket: Bucket, photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    source, output = str(photos), str(tmp_path)
    if storage == "store":
        source, output = bucket.put_folder(photos, "p"), f"{bucket.address}/s"

    def finished() -> int:
        return sum(bool(re.search(r"/(train|val)-\d+\.json$", f"/{name}")) for name in names())

    def names() -> list[str]:
        return [str(path) for path in tmp_path.rglob("*")] if storage == "folder" else list(bucket.keys("s"))

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
    if storage == "folder":
        folder = tmp_path
    else:
        folder = tmp_path / "downloaded"
        bucket.download("s", folder)
    assert contract_files(folder) == undisturbed
    assert stderr.splitlines()[-1].startswith(f"{NUM_PHOTOS}/{NUM_PHOTOS} photos, ")
    assert not list(tmp_path.rglob("*.tmp"))
    print(
        f"\n{storage}: {NUM_KILLS} nodes killed, {len(lost)} of them building {lost}; {took:.0f} s",
        os.linesep,
        stdout,
    )
