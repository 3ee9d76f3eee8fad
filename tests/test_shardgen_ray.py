"""`generate --engine ray` on a real cluster of several nodes: the same bytes, whatever dies."""

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
from helpers import PATIENCE_S, contract_files, generate, make_photos, markers, run_cli, running, unfinished, wait_until

from shardgen.engines.ray_node import build_on_node, versions
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
    """What the local engine makes."""
    output = tmp_path_factory.mktemp("undisturbed")
    generate(many_photos, output, *ARGS)
    return contract_files(output)


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    with ray_environment() as folder:
        yield folder


@pytest.fixture(scope="module")
def head(ray_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """A cluster of nothing but a head without CPUs, and how `generate` ended on it, before others add nodes."""
    with ray_cluster(0) as cluster:
        folder = tmp_path_factory.mktemp("head")
        args = ("--engine", "ray", "--ray-address", cluster.address)
        done = run_cli("generate", "-i", photos, "-o", "out", "--auto", *args, cwd=folder)
        assert not (folder / "out").exists()
        yield cluster, done


@pytest.fixture(scope="module")
def cluster(head: tuple[Any, Any], s3_server: S3Server) -> Any:
    """The head, where the commands run, and two nodes of one CPU each, which know the S3 server."""
    cluster, _ = head
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(s3_server.endpoint).items():
            patch.setenv(name, value)
        for _ in range(2):
            cluster.add_node(**NODE)
    return cluster


def told(stderr: str) -> tuple[list[str], list[str]]:
    """Lines of how far the run is, which come every ten seconds and at the end, and all others but empty ones."""
    lines = [line for line in stderr.splitlines() if line]
    counts = [line for line in lines if re.match(r"[\d,]+/[\d,]+ photos, ", line)]
    return counts, [line for line in lines if line not in counts]


def test_the_same_bytes_as_here_and_no_word_of_ray(
    cluster: Any, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    (many := Path(shutil.copytree(many_photos, tmp_path / "many"))).joinpath("broken.jpg").write_bytes(b"no photo")
    args = ("--engine", "ray", "--ray-address", cluster.address, "--auto")
    done = run_cli("generate", "-i", "many", "-o", "out", *args, *ARGS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    generate(many, tmp_path / "local", *ARGS)
    assert contract_files(tmp_path / "out") == contract_files(tmp_path / "local")
    counts, others = told(done.stderr)
    assert counts[-1].startswith("121/121 photos, ") and counts[-1].endswith(" 1 failed")
    assert [line.partition(" (")[0] for line in others] == ["1 of 121 photos failed"]
    assert [line.split(" ")[0] for line in done.stdout.splitlines()[-4:-1]] == [
        "out/scale_2x:",
        "out/scale_3x:",
        "Shards:",
    ]
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_photos_and_shards_in_a_store(
    cluster: Any, many_photos: Path, undisturbed: dict[str, str], s3: Bucket, tmp_path: Path
) -> None:
    source, target = s3.put_folder(many_photos, "photos"), f"{s3.address}/shards"
    args = ("--engine", "ray", "--ray-address", cluster.address, "--auto")
    done = run_cli("generate", "-i", source, "-o", target, *args, *ARGS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    s3.download("shards", tmp_path / "copy")
    assert contract_files(tmp_path / "copy") == undisturbed
    assert s3.proxy.count("GET", "*/photos/*") == 0, "the nodes ask the server themselves"


def test_a_node_that_dies_changes_nothing(
    cluster: Any, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    victim = cluster.add_node(**NODE)
    with running(*on_cluster(cluster, many_photos, tmp_path, *ARGS)) as process:
        wait_until(lambda: unfinished(tmp_path) and workers(victim), process)
        kill_node(cluster, victim)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert contract_files(tmp_path) == undisturbed
    counts, others = told(stderr)
    assert counts[-1].startswith("120/120 photos") and not others
    assert "ray" not in stdout.replace(str(tmp_path), "").replace(str(many_photos), ""), "deaths are Ray's own affair"
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("signal_number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupt_stops_and_leaves_no_trace(
    signal_number: int, exit_code: int, cluster: Any, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with running(*on_cluster(cluster, many_photos, tmp_path, *ARGS)) as process:
        wait_until(lambda: unfinished(tmp_path) and markers(tmp_path), process)
        os.killpg(process.pid, signal_number)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == exit_code, stderr
    assert told(stderr)[1] == ["Interrupted. Finished shards are kept; run the same command again to continue."]
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.glob("scale_*/manifest.json"))
    finished = len(markers(tmp_path))
    wait_until(lambda: not any(workers(node) for node in cluster.worker_nodes))
    assert len(markers(tmp_path)) == finished and not list(tmp_path.rglob("*.tmp"))
    generate(many_photos, tmp_path, *ARGS)
    assert contract_files(tmp_path) == undisturbed


def test_a_killed_run_takes_its_workers_along_and_goes_on_where_it_was(
    cluster: Any, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with running(*on_cluster(cluster, many_photos, tmp_path, *ARGS)) as process:
        wait_until(lambda: unfinished(tmp_path) and markers(tmp_path), process)
        process.kill()
        process.wait()
    with running(*on_cluster(cluster, many_photos, tmp_path, *ARGS)) as process:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert " kept" in stdout and " 0 kept" not in stdout
    assert contract_files(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("*.tmp"))
    wait_until(lambda: not any(workers(node) for node in cluster.worker_nodes))


def test_a_photo_that_goes_away_is_a_failure_and_nothing_else(cluster: Any, photos: Path, tmp_path: Path) -> None:
    """All machines see that it has gone, so it is a bad photo and no bad node."""
    mine = Path(shutil.copytree(photos, tmp_path / "mine"))
    args = ("-s", 2, "--size", 64, "--shard-bytes", "50KB", "--workers", 1)
    tasks = prepare(Config(mine, tmp_path / "out", (2,), size=64, shard_bytes=50_000)).tasks
    with running(*on_cluster(cluster, mine, tmp_path / "out", *args)) as process:
        wait_until(lambda: unfinished(tmp_path / "out"), process)
        gone = tasks[-1].plan.photos[0].path
        (mine / gone).unlink()
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    failures = load_json(tmp_path / "out/scale_2x/manifest.json", Path.read_bytes)["failures"]
    assert failures == [{"path": gone, "reason": "cannot be read: No such file or directory"}]


def alive(cluster: Any) -> list[Any]:
    return [node for node in cluster.global_state.node_table() if node["Alive"]]


@contextlib.contextmanager
def blind_node(cluster: Any, hidden: Path) -> Iterator[None]:
    """A node as people start one, in a mount namespace of its own where a folder is empty."""
    before = wait_until(lambda: len(found := alive(cluster)) == 1 + len(cluster.worker_nodes) and found)
    start = f"ray start --address={cluster.address} --num-cpus=1 --object-store-memory=80000000 --block"
    command = [
        "unshare",
        "-m" if os.geteuid() == 0 else "-Urm",
        "sh",
        "-c",
        f"mount -t tmpfs tmpfs {hidden} && exec {start}",
    ]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        command, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: len(alive(cluster)) > len(before))
        yield
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()


def test_a_node_without_the_photos_is_named_and_no_photo_is_blamed(
    cluster: Any, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with (
        blind_node(cluster, many_photos),
        running(*on_cluster(cluster, many_photos, tmp_path, *ARGS, "--workers", 9)) as process,
    ):
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f" cannot be read on node {socket.gethostname()} (" in stderr and "Traceback" not in stderr
    assert f"bytes on this machine. All nodes must see the same photos in {many_photos}: fix the node's mount" in stderr
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("manifest.json"))
    generate(many_photos, tmp_path, *ARGS)
    assert contract_files(tmp_path) == undisturbed


def on_node(photos: Path, output: Path, **changed: Any) -> RunError:
    """What a node says to a task that it must not begin."""
    task = prepare(Config(photos, output, size=64)).tasks[0]
    usual = {"job": pytest.fail, "board": None, "mark": output / "mark", "expected": versions(), "compare": True}
    said = build_on_node(task, **{**usual, **changed})
    assert isinstance(said, RunError)
    return said


def test_a_node_that_does_not_see_the_output_is_named(photos: Path, tmp_path: Path) -> None:
    said = str(on_node(photos, tmp_path))
    assert said.startswith(f"node {socket.gethostname()} (")
    assert f"does not see the output folder {tmp_path}. Mount the same folder at the same path" in said


def test_a_node_with_other_libraries_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    said = str(on_node(photos, tmp_path, expected={**versions(), "pillow": "1.0"}))
    assert f"has other versions: pillow {versions()['pillow']} (not 1.0). Install the same versions on" in said


def test_a_node_whose_file_names_are_not_utf8_is_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert str(on_node(photos, tmp_path)).endswith(") decodes file names as ascii. Start Ray there with PYTHONUTF8=1.")


ENGINE = """
    import os, sys, time
    from pathlib import Path
    import cv2
    from shardgen.planning.config import Config
    from shardgen.engines.ray import ray_engine
    from srshards.errors import RunError
    from shardgen.generate.run import prepare
    from shardgen.shard.job import Progress, ShardResult

    photos, output, address = sys.argv[1:]
    config = Config(Path(photos), Path(output), size=64, shard_bytes=50_000)
    tasks = prepare(config).tasks
    attempts, shown = Path(output, "attempts"), Path(output, "shown")

    def told(progress):
        reports.append(progress)
        if sum(report.photos for report in reports) >= 2:
            shown.touch()

    def deadly(task, report, before_commit):  # its first two makers die when what they reported has been seen
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
                print("results", [result.name for result in engine.run(tasks[:1], job, told)] == [tasks[0].plan.name])
            except RunError as error:
                print("error", error)
            print("attempts", attempts.stat().st_size)
            total, count = sum(reports, Progress()), len(tasks[0].plan.photos)
            print("reports", len(reports) >= 2, total == Progress(count, 1, 10 * count), flush=True)
"""


def test_tasks_are_tried_again_when_their_process_dies_and_only_then(
    cluster: Any, photos: Path, tmp_path: Path
) -> None:
    program = [sys.executable, "-c", textwrap.dedent(ENGINE), photos, tmp_path, cluster.address]
    done = subprocess.run([str(word) for word in program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    deadly, always_deadly, full, faulty = done.stdout.split("\nreports")[:4]
    assert deadly == "results True\nattempts 3" and always_deadly.startswith(" True True\n"), "each photo counts once"
    assert (
        "error shard train-00000" in always_deadly
        and "was started 4 times, and each time its node or w" in always_deadly
    )
    assert "Run the same command again: finished shards are kept." in always_deadly and "attempts 4" in always_deadly
    assert "error cannot write shard train-00000" in full and "No space left on device. No partial files" in full
    assert "which is a bug in the program:\nTraceback" in faulty and "ZeroDivisionError" in faulty
    assert not done.stderr and not list(tmp_path.rglob("*.tmp"))


def test_without_a_cluster_one_is_started_and_ended(
    ray_folder: Path, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="ray") as empty:
        monkeypatch.setenv("RAY_TMPDIR", empty)
        args = ("-i", many_photos, "-o", "out", "--auto", *ARGS, "--workers", 2, "--engine", "ray")
        done = run_cli("generate", *args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: not any(empty in " ".join(words) for words in command_lines()))
    assert contract_files(tmp_path / "out") == undisturbed
    counts, others = told(done.stderr)
    assert counts[-1].startswith("120/120 photos") and not others


def command_lines() -> Iterator[list[str]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            yield process.cmdline()


def test_without_ray_it_is_asked_for(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('not here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    args = ("-i", photos, "-o", tmp_path / "out", "--auto", "--engine", "ray")
    done = run_cli("generate", *args, env=environment)
    assert done.returncode == 2
    assert done.stderr == (
        "Error: --engine ray needs Ray (not here). In a clone of sr-shards: pip install -e '.[ray]'; "
        "elsewhere: pip install 'sr-shards[ray]'\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--ray-address auto", "--ray-address auto needs --engine ray"),
        ("--engine ray --workers 0", "--workers 0: --engine ray cannot work in this process; pass 1 or more"),
        (
            "--engine ray --ray-address ray://here:10001",
            "--ray-address ray://here:10001: expected HOST:PORT, auto or l",
        ),
        ("--engine ray --ray-address here", "--ray-address here: expected HOST:PORT, auto or local"),
        ("--engine ray --ray-address 127.0.0.1:1", "cannot use a Ray cluster at 127.0.0.1:1: [Errno 111] Connection r"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_changed(
    words: str, said: str, photos: Path, tmp_path: Path
) -> None:
    done = run_cli("generate", "-i", photos, "-o", tmp_path / "out", "--auto", *words.split())
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_address_in_the_environment_counts(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    done = run_cli("generate", "-i", photos, "-o", tmp_path / "out", "--auto", "--engine", "ray")
    assert done.returncode == 2 and "cannot use a Ray cluster at 127.0.0.1:1" in done.stderr


def test_a_cluster_without_cpus_is_refused(head: tuple[Any, Any]) -> None:
    cluster, done = head
    assert done.returncode == 2
    assert f"the Ray cluster at {cluster.address} has no CPUs. Start nodes (ray start --address ...)" in done.stderr
