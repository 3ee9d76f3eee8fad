"""`generate --engine ray` on a real cluster of several nodes: equal bytes, and recovery from failures."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import TIMEOUT_S, contract_files, generate, make_photos, markers, run_cli, running, unfinished, wait_until
from pairs import make_pairs, pack

from shardgen.engines.ray_node import build_on_node, mismatched_sizes, versions
from shardgen.generate.inputs import list_inputs
from shardgen.generate.pair_inputs import PackRequest, PairFolders, list_pairs
from shardgen.generate.run import prepare
from shardgen.planning.config import Config
from srshards.errors import RunError
from srshards.format import load_json
from tests.drill.commands import ROOT
from tests.drill.ray_cluster import NODE, kill_node, on_cluster, ray_cluster, ray_environment, workers
from tests.drill.s3_server import Bucket, S3Server, environment

ARGS = ("-s", 2, 3, "--size", 256, "--shard-bytes", "3MB")


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("many"), 120, size=(300, 400))


@pytest.fixture(scope="module")
def undisturbed(many_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of the local engine."""
    output = tmp_path_factory.mktemp("undisturbed")
    generate(many_photos, output, *ARGS)
    return contract_files(output)


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    with ray_environment() as folder:
        yield folder


@pytest.fixture(scope="module")
def head(ray_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """A cluster of one head without CPUs, and the result of `generate` on it before nodes are added."""
    with ray_cluster(0) as cluster:
        folder = tmp_path_factory.mktemp("head")
        args = ("--engine", "ray", "--ray-address", cluster.address)
        result = run_cli("generate", "-i", photos, "-o", "out", "--auto", *args, cwd=folder)
        assert not (folder / "out").exists()
        yield cluster, result


@pytest.fixture(scope="module")
def cluster(head: tuple[Any, Any], s3_server: S3Server) -> Any:
    """The head and two nodes of one CPU each, configured for the S3 server."""
    cluster, _ = head
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(s3_server.endpoint).items():
            patch.setenv(name, value)
        for _ in range(2):
            cluster.add_node(**NODE)
    return cluster


def split_stderr(stderr: str) -> tuple[list[str], list[str]]:
    """Split the non-empty lines into progress lines and others."""
    lines = [line for line in stderr.splitlines() if line]
    counts = [line for line in lines if re.match(r"[\d,]+/[\d,]+ photos, ", line)]
    return counts, [line for line in lines if line not in counts]


def test_bytes_equal_the_local_engines_without_output_of_ray(
    cluster: Any, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    (many := Path(shutil.copytree(many_photos, tmp_path / "many"))).joinpath("broken.jpg").write_bytes(b"no photo")
    args = ("--engine", "ray", "--ray-address", cluster.address, "--auto")
    result = run_cli("generate", "-i", "many", "-o", "out", *args, *ARGS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    generate(many, tmp_path / "local", *ARGS)
    assert contract_files(tmp_path / "out") == contract_files(tmp_path / "local")
    counts, others = split_stderr(result.stderr)
    assert counts[-1].startswith("121/121 photos, ") and counts[-1].endswith(" 1 failed")
    assert [line.partition(" (")[0] for line in others] == ["1 of 121 photos failed"]
    last_lines = [line.split(" ")[0] for line in result.stdout.splitlines()[-4:-1]]
    assert last_lines == ["out/scale_2x:", "out/scale_3x:", "Shards:"]
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_photos_and_shards_in_a_store(
    cluster: Any, many_photos: Path, undisturbed: dict[str, str], s3: Bucket, tmp_path: Path
) -> None:
    source, target = s3.put_folder(many_photos, "photos"), f"{s3.address}/shards"
    args = ("--engine", "ray", "--ray-address", cluster.address, "--auto")
    result = run_cli("generate", "-i", source, "-o", target, *args, *ARGS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    s3.download("shards", tmp_path / "copy")
    assert contract_files(tmp_path / "copy") == undisturbed
    assert s3.proxy.count("GET", "*/photos/*") == 0, "the nodes access the server directly"


def test_packed_pairs_equal_the_local_engines(cluster: Any, tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "pairs", 12)
    pack(pairs, tmp_path / "local", "--shard-bytes", "60KB", scales=(2, 3))
    args = ("--hr", "pairs/HR", "--lr", "pairs/X2", "--lr", "pairs/X3", "-o", "out", "--auto", "--size", 48)
    ray = ("--engine", "ray", "--ray-address", cluster.address)
    result = run_cli("pack", *args, "--shard-bytes", "60KB", *ray, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert contract_files(tmp_path / "out") == contract_files(tmp_path / "local")
    task = prepare(list_pairs(PackRequest(tmp_path / "other", PairFolders(pairs / "HR", (pairs / "X2",))))).tasks[0]
    (pairs / "X2" / task.plan.photos[0].path).write_bytes(b"another size")
    assert mismatched_sizes(task) == {(pairs / "X2", task.plan.photos[0].path): 12}, "LR is compared too"


def test_dying_node_does_not_change_the_shards(
    cluster: Any, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    victim = cluster.add_node(**NODE)
    with running(*on_cluster(cluster, many_photos, tmp_path, *ARGS)) as process:
        wait_until(lambda: unfinished(tmp_path) and workers(victim), process)
        kill_node(cluster, victim)
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, stderr
    assert contract_files(tmp_path) == undisturbed
    counts, others = split_stderr(stderr)
    assert counts[-1].startswith("120/120 photos") and not others
    assert "ray" not in stdout.replace(str(tmp_path), "").replace(str(many_photos), ""), "a message of Ray's own"
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("signal_number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupt_stops_the_run_without_partial_files(
    signal_number: int, exit_code: int, cluster: Any, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with running(*on_cluster(cluster, many_photos, tmp_path, *ARGS)) as process:
        wait_until(lambda: unfinished(tmp_path) and markers(tmp_path), process)
        os.killpg(process.pid, signal_number)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == exit_code, stderr
    assert split_stderr(stderr)[1] == ["Interrupted. Finished shards are kept; run the same command again to continue."]
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.glob("scale_*/manifest.json"))
    finished = len(markers(tmp_path))
    wait_until(lambda: not any(workers(node) for node in cluster.worker_nodes))
    assert len(markers(tmp_path)) == finished and not list(tmp_path.rglob("*.tmp"))
    generate(many_photos, tmp_path, *ARGS)
    assert contract_files(tmp_path) == undisturbed


def test_killed_run_ends_its_workers_and_resumes(
    cluster: Any, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with running(*on_cluster(cluster, many_photos, tmp_path, *ARGS)) as process:
        wait_until(lambda: unfinished(tmp_path) and markers(tmp_path), process)
        process.kill()
        process.wait()
    with running(*on_cluster(cluster, many_photos, tmp_path, *ARGS)) as process:
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, stderr
    assert " kept" in stdout and " 0 kept" not in stdout
    assert contract_files(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("*.tmp"))
    wait_until(lambda: not any(workers(node) for node in cluster.worker_nodes))


def test_removed_photo_is_a_failure(cluster: Any, photos: Path, tmp_path: Path) -> None:
    """Every machine sees that it is missing, so the photo is at fault and not a node."""
    photos_copy = Path(shutil.copytree(photos, tmp_path / "mine"))
    args = ("-s", 2, "--size", 64, "--shard-bytes", "50KB", "--workers", 1)
    tasks = prepare(list_inputs(Config(photos_copy, tmp_path / "out", (2,), size=64, shard_bytes=50_000))).tasks
    with running(*on_cluster(cluster, photos_copy, tmp_path / "out", *args)) as process:
        wait_until(lambda: unfinished(tmp_path / "out"), process)
        removed = tasks[-1].plan.photos[0].path
        (photos_copy / removed).unlink()
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, stderr
    failures = load_json(tmp_path / "out/scale_2x/manifest.json", Path.read_bytes)["failures"]
    assert failures == [{"path": removed, "reason": "cannot be read: No such file or directory"}]


def alive_nodes(cluster: Any) -> list[Any]:
    return [node for node in cluster.global_state.node_table() if node["Alive"]]


@contextlib.contextmanager
def node_without_folder(cluster: Any, hidden: Path) -> Iterator[None]:
    """A node started by `ray start` in a mount namespace in which `hidden` is empty."""
    before = wait_until(lambda: len(found := alive_nodes(cluster)) == 1 + len(cluster.worker_nodes) and found)
    start = f"ray start --address={cluster.address} --num-cpus=1 --object-store-memory=80000000 --block"
    namespace = ["unshare", "-m" if os.geteuid() == 0 else "-Urm"]
    command = [*namespace, "sh", "-c", f"mount -t tmpfs tmpfs {hidden} && exec {start}"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        command, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: len(alive_nodes(cluster)) > len(before))
        yield
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()


def test_node_without_the_photos_is_an_error(
    cluster: Any, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with (
        node_without_folder(cluster, many_photos),
        running(*on_cluster(cluster, many_photos, tmp_path, *ARGS, "--workers", 9)) as process,
    ):
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert f" cannot be read on node {socket.gethostname()} (" in stderr and "Traceback" not in stderr
    assert f"bytes on this machine. All nodes must see the same photos in {many_photos}: fix the node's mount" in stderr
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("manifest.json"))
    generate(many_photos, tmp_path, *ARGS)
    assert contract_files(tmp_path) == undisturbed


def node_error(photos: Path, output: Path, **changed: Any) -> RunError:
    """Return the error with which a node rejects a task."""
    task = prepare(list_inputs(Config(photos, output, size=64))).tasks[0]
    defaults = {"job": pytest.fail, "board": None, "mark": output / "mark", "expected": versions(), "compare": True}
    message = build_on_node(task, **{**defaults, **changed})
    assert isinstance(message, RunError)
    return message


def test_node_without_the_output_folder_is_an_error(photos: Path, tmp_path: Path) -> None:
    message = str(node_error(photos, tmp_path))
    assert message.startswith(f"node {socket.gethostname()} (")
    assert f"cannot access the output folder {tmp_path}; mount the same folder at the same path" in message


def test_node_with_other_libraries_is_an_error(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    message = str(node_error(photos, tmp_path, expected={**versions(), "pillow": "1.0"}))
    assert f"has different versions: pillow {versions()['pillow']} (not 1.0); install the same versions on" in message


def test_node_with_another_file_name_encoding_is_an_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    message = str(node_error(photos, tmp_path))
    assert message.endswith(") decodes file names as ascii; start Ray there with PYTHONUTF8=1")


ENGINE = """
    import os, sys, time
    from pathlib import Path
    import cv2
    from shardgen.planning.config import Config
    from shardgen.engines.ray import ray_engine
    from srshards.errors import RunError
    from shardgen.generate.inputs import list_inputs
    from shardgen.generate.run import prepare
    from shardgen.shard.job import Progress, ShardResult

    photos, output, address = sys.argv[1:]
    config = Config(Path(photos), Path(output), size=64, shard_bytes=50_000)
    tasks = prepare(list_inputs(config)).tasks
    attempts, shown = Path(output, "attempts"), Path(output, "shown")

    def count(progress):
        reports.append(progress)
        if sum(report.photos for report in reports) >= 2:
            shown.touch()

    def deadly(task, report, before_commit):  # the first two processes exit after their reports were received
        for _ in task.plan.photos[:-1]:
            report.__self__._next_s = 0
            report(Progress(1, 0, 10))
        with open(attempts, "a") as file:
            file.write("x")
        while not shown.exists():
            time.sleep(0.001)
        if attempts.stat().st_size <= 2:
            os._exit(7)
        report(Progress(1, 1, 10))
        before_commit()
        assert (cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"]) == (1, "1")
        return ShardResult(task.plan.name)

    def always_deadly(task, report, before_commit):
        with open(attempts, "a") as file:
            file.write("x")
        os._exit(7)

    def full(task, report, before_commit):
        raise OSError(28, "No space left on device")

    def faulty(task, report, before_commit):
        return 1 // 0

    with ray_engine(address, 1) as engine:
        for job in (deadly, always_deadly, full, faulty):
            reports = []
            attempts.write_text("")
            try:
                print("results", [result.name for result in engine.run(tasks[:1], job, count)] == [tasks[0].plan.name])
            except RunError as error:
                print("error", error)
            print("attempts", attempts.stat().st_size)
            total, photos = sum(reports, Progress()), len(tasks[0].plan.photos)
            print("reports", len(reports) >= 2, total == Progress(photos, 1, 10 * photos), flush=True)
"""


def test_tasks_are_retried_only_when_their_process_dies(cluster: Any, photos: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-c", textwrap.dedent(ENGINE), photos, tmp_path, cluster.address]
    result = subprocess.run([str(word) for word in program], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    deadly, always_deadly, full, faulty = result.stdout.split("\nreports")[:4]
    assert deadly == "results True\nattempts 3"
    assert always_deadly.startswith(" True True\n"), "each photo is counted once"
    assert "error shard train-00000" in always_deadly
    assert "was started 4 times, and each time its node or w" in always_deadly
    assert "Run the same command again: finished shards are kept." in always_deadly and "attempts 4" in always_deadly
    assert "error cannot write shard train-00000" in full and "No space left on device. No partial files" in full
    assert "which is a bug in the program:\nTraceback" in faulty and "ZeroDivisionError" in faulty
    assert not result.stderr and not list(tmp_path.rglob("*.tmp"))


def test_local_cluster_is_started_and_stopped(
    ray_folder: Path, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="ray") as empty:
        monkeypatch.setenv("RAY_TMPDIR", empty)
        args = ("-i", many_photos, "-o", "out", "--auto", *ARGS, "--workers", 2, "--engine", "ray")
        result = run_cli("generate", *args, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        wait_until(lambda: not any(empty in " ".join(arguments) for arguments in command_lines()))
    assert contract_files(tmp_path / "out") == undisturbed
    counts, others = split_stderr(result.stderr)
    assert counts[-1].startswith("120/120 photos") and not others


def command_lines() -> Iterator[list[str]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            yield process.cmdline()


def test_missing_ray_is_an_error(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('not here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    args = ("-i", photos, "-o", tmp_path / "out", "--auto", "--engine", "ray")
    result = run_cli("generate", *args, env=environment)
    assert result.returncode == 2
    assert result.stderr == (
        "Error: --engine ray requires Ray (not here); run `pip install 'sr-shards[ray]'` or, in a clone of "
        "sr-shards, `pip install -e '.[ray]'`\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--ray-address auto", "--ray-address auto requires --engine ray"),
        ("--engine ray --workers 0", "--workers 0: expected 1 or more with --engine ray"),
        (
            "--engine ray --ray-address ray://here:10001",
            "--ray-address ray://here:10001: expected HOST:PORT, auto or l",
        ),
        ("--engine ray --ray-address here", "--ray-address here: expected HOST:PORT, auto or local"),
        ("--engine ray --ray-address 127.0.0.1:1", "cannot use a Ray cluster at 127.0.0.1:1: [Errno 111] Connection r"),
    ],
)
def test_invalid_options_are_errors(arguments: str, message: str, photos: Path, tmp_path: Path) -> None:
    result = run_cli("generate", "-i", photos, "-o", tmp_path / "out", "--auto", *arguments.split())
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_ray_address_from_the_environment_is_used(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    result = run_cli("generate", "-i", photos, "-o", tmp_path / "out", "--auto", "--engine", "ray")
    assert result.returncode == 2 and "cannot use a Ray cluster at 127.0.0.1:1" in result.stderr


def test_cluster_without_cpus_is_an_error(head: tuple[Any, Any]) -> None:
    cluster, result = head
    assert result.returncode == 2
    assert f"the Ray cluster at {cluster.address} has no CPUs; start nodes (`ray start --address ...`)" in result.stderr
