"""Killed runs, dead workers, full disks and concurrent runs leave no partial files, and runs resume."""

import functools
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from helpers import (
    TIMEOUT_S,
    all_files,
    close_terminal_when,
    contract_files,
    generate,
    make_photos,
    markers,
    run_cli,
    running,
    wait_until,
)

from shardgen.generate.inputs import list_inputs
from shardgen.generate.run import prepare
from shardgen.planning.config import Config
from shardgen.shard.job import build_shard

pytestmark = pytest.mark.slow

ARGS = ("-s", 2, 3, 4, "--size", 160, "--shard-bytes", "2MB", "--workers", 2)  # 27 shards


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("many"), 120, size=(180, 240))


@pytest.fixture(scope="module")
def undisturbed(many_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of an uninterrupted run."""
    output = tmp_path_factory.mktemp("undisturbed")
    generate(many_photos, output, *ARGS)
    return contract_files(output)


def generate_args(photos: Path, output: Path) -> tuple[object, ...]:
    return ("generate", "-i", photos, "-o", output, "--auto", *ARGS)


def temporaries(output: Path) -> list[Path]:
    return list(output.rglob("*.tmp"))


MOMENTS: dict[str, Callable[[Path], object]] = {
    "at the start": lambda output: True,
    "after locking": lambda output: (output / ".shardgen.lock").exists(),
    "in the first shard": temporaries,
    "after the first shard": lambda output: len(markers(output)) >= 1,
    "in the middle": lambda output: len(markers(output)) >= 11,
    "near the end": lambda output: len(markers(output)) >= 24,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_run_resumes(moment: str, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    with running(*generate_args(many_photos, tmp_path)) as process:
        wait_until(lambda: MOMENTS[moment](tmp_path), process)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=TIMEOUT_S)
        assert not alive, "workers must not outlive their run"
    finished = {path: path.stat().st_mtime_ns for path in markers(tmp_path)}
    result = generate(many_photos, tmp_path, *ARGS)
    assert contract_files(tmp_path) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished shards are not rebuilt"
    kept = (f"{len(finished)} kept, 0 removed", f"All {len(finished)} shards are up to date")
    assert any(text in result.stdout for text in kept) or not finished
    assert not temporaries(tmp_path)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV])
def test_dead_worker_is_an_error_with_its_shard(
    signal_number: int, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with running(*generate_args(many_photos, tmp_path)) as process:
        wait_until(lambda: temporaries(tmp_path), process)
        (name, pid), *_ = [path.name.split(".")[1:4:2] for path in temporaries(tmp_path)]
        os.kill(int(pid), signal_number)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert f"building shard {name} was killed by signal {int(signal_number)}" in stderr
    assert "Run the same command again: finished shards are kept." in stderr and "Traceback" not in stderr
    assert not temporaries(tmp_path)
    generate(many_photos, tmp_path, *ARGS)
    assert contract_files(tmp_path) == undisturbed


@pytest.mark.parametrize(
    ("signal_number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("moment", ["in the first shard", "in the middle"])
def test_interrupt_stops_the_run_without_partial_files(
    moment: str, signal_number: int, exit_code: int, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with running(*generate_args(many_photos, tmp_path)) as process:
        wait_until(lambda: MOMENTS[moment](tmp_path), process)
        finished = len(markers(tmp_path))
        os.killpg(process.pid, signal_number)  # as a terminal does: to all processes of the group
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == exit_code
    assert "Interrupted. Finished shards are kept; run the same command again to continue." in stderr
    assert "Traceback" not in stderr and "leaked" not in stderr
    assert not temporaries(tmp_path)
    assert not list(tmp_path.glob("scale_*/manifest.json"))
    in_progress = 2 * 3  # two workers, three scales
    assert len(markers(tmp_path)) <= finished + in_progress, "no worker starts another shard"
    generate(many_photos, tmp_path, *ARGS)
    assert contract_files(tmp_path) == undisturbed


@pytest.mark.parametrize("nohup", [False, True])
def test_closed_terminal_stops_the_run_except_under_nohup(
    nohup: bool, many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "shardgen", *map(str, generate_args(many_photos, tmp_path))]
    code = close_terminal_when(command, functools.partial(MOMENTS["after the first shard"], tmp_path), nohup)
    assert code == (0 if nohup else 129)
    assert not temporaries(tmp_path)
    assert bool(list(tmp_path.glob("scale_*/manifest.json"))) is nohup
    if nohup:
        assert contract_files(tmp_path) == undisturbed


def test_workers_run_no_opencv_or_blas_threads(many_photos: Path, tmp_path: Path) -> None:
    with running(*generate_args(many_photos, tmp_path)) as process:
        wait_until(lambda: temporaries(tmp_path), process)
        pids = {int(path.name.split(".")[3]) for path in temporaries(tmp_path)}
        os.killpg(process.pid, signal.SIGSTOP)
        threads = [psutil.Process(pid).num_threads() for pid in pids]
    assert threads and max(threads) <= 1 + 3, "one main thread and one writer per scale"


FULL_DISK = """
    import os, signal, subprocess, sys
    from pathlib import Path

    photos, disk, mode = sys.argv[1:4]
    size = "2m" if mode == "refused" else "100m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
    command = [sys.executable, "-m", "shardgen", "generate", "-i", photos, "-o", f"{disk}/out", *sys.argv[4:]]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    if mode == "fills up":
        while not list(Path(disk).rglob("train-*.json")):
            assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGSTOP)
        with open(f"{disk}/filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(1 << 20))
            except OSError:
                pass
        os.killpg(process.pid, signal.SIGCONT)
    print(process.communicate()[1], "exit", process.returncode)
    print("left:", [str(path) for path in Path(disk).rglob("*.tmp")])
    if mode == "fills up":
        Path(f"{disk}/filler").unlink()
        print("again", subprocess.run(command, capture_output=True).returncode)
        subprocess.run(["cp", "-r", f"{disk}/out", sys.argv[2] + "_copy"], check=True)
"""


def run_on_a_small_disk(mode: str, photos: Path, tmp_path: Path) -> str:
    """Run in a separate mount namespace with a tmpfs of a few MB as the output's disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    program = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(photos), str(disk), mode, "--auto"]
    result = subprocess.run([*namespace, *program, *map(str, ARGS)], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_full_disk_is_an_error_and_the_run_resumes(
    many_photos: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    output = run_on_a_small_disk("fills up", many_photos, tmp_path)
    assert "cannot write" in output and "No space left on device" in output and "exit 1" in output
    assert "Traceback" not in output and "left: []" in output and "again 0" in output
    assert contract_files(tmp_path / "disk_copy") == undisturbed


def test_too_small_disk_is_an_error_at_the_start(many_photos: Path, tmp_path: Path) -> None:
    output = run_on_a_small_disk("refused", many_photos, tmp_path)
    assert re.search(r"the shards need about [0-9.]+ [MG]B, but .* has [0-9.]+ MB free; free some disk space", output)
    assert "exit 1" in output


HOLD_LOCK = """
    import sys
    from pathlib import Path
    from srshards.storage.output_lock import locked
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
"""


def test_second_run_is_rejected_while_the_first_is_alive(photos: Path, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD_LOCK), str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    result = generate(photos, tmp_path / "out", expect=2)
    assert f"another shardgen run is writing to {tmp_path / 'out'}; wait until it has finished" in result.stderr
    assert all_files(tmp_path / "out") == {".shardgen.lock"}
    holder.kill()
    holder.communicate()
    generate(photos, tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "idx", "json"])
@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_damaged_shard_is_rebuilt(kind: str, damage: str, photos: Path, shards: Path, shards_copy: Path) -> None:
    victim = shards_copy / "scale_2x" / f"train-000000.{kind}"
    if damage == "removed":
        victim.unlink()
    else:
        os.truncate(victim, 0 if kind == "idx" else victim.stat().st_size // 2)
    result = generate(photos, shards_copy, "-s", 2, 3, "--shard-bytes", "300KB")
    assert "Shards: 1 built" in result.stdout
    assert contract_files(shards_copy) == contract_files(shards)
    assert run_cli("verify", shards_copy).returncode == 0


def test_builder_of_a_finished_run_commits_nothing(photos: Path, tmp_path: Path) -> None:
    task = prepare(list_inputs(Config(photos, tmp_path / "out", (2,), 64))).tasks[0]
    (tmp_path / "out").mkdir()

    def before_commit() -> None:
        raise RuntimeError("the run has ended")

    with pytest.raises(RuntimeError, match="the run has ended"):
        build_shard(task, lambda progress: None, before_commit)
    assert not all_files(tmp_path / "out")


def test_before_commit_is_called_before_the_tar_and_the_marker(photos: Path, tmp_path: Path) -> None:
    task = prepare(list_inputs(Config(photos, tmp_path / "out", (2,), 64))).tasks[0]
    (tmp_path / "out").mkdir()
    files_at_calls: list[set[str]] = []

    def before_commit() -> None:
        files_at_calls.append({name for name in all_files(tmp_path / "out") if not name.endswith(".tmp")})

    build_shard(task, lambda progress: None, before_commit)
    assert files_at_calls == [set(), {"scale_2x/train-000000.idx", "scale_2x/train-000000.tar"}]
