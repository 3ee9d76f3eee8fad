"""Training in several processes: results independent of their number, a single writer, and restarts."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import astuple
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest
import torch
import yaml
from helpers import TIMEOUT_S, events, generate, make_photos, overwrite, trainer, wait_until
from PIL import Image
from test_trainer_faults import on_step, terminate
from torch.distributed import TCPStore

from srshards.errors import ArgumentError, ReportedError, RunError, UsageError
from srshards.sampling.schedule import Schedule
from srshards.shards.opening import open_shards
from srshards.shards.tar_index import load_index
from tests.drill.s3_server import Bucket
from tests.drill.warm import Prepare, Warm
from trainer.distributed.group import RankGroup
from trainer.distributed.rank import SINGLE_PROCESS, RankInfo, ReportedByRank0
from trainer.distributed.rendezvous import join_attempt
from trainer.evaluation.metrics import Quality, mean_quality
from trainer.evaluation.scores import mean_scores, score_sums
from trainer.metrics_table import OWN
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig
from trainer.training.describe import describe
from trainer.training.device import choose_device
from trainer.training.stopping import StopRequest

pytestmark = pytest.mark.slow

STEPS = 60
# A small rate, because AdamW turns gradients that are rounding errors into full steps.
SMALL = ("--model", "ultra_lite", "--patch-size", 24, "--workers", 0, "--device", "cpu", "--amp", "off", "--lr", 2e-5)


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with seven validation images, and two photos `more`, which two or four ranks cannot divide evenly."""
    output = tmp_path_factory.mktemp("shards")
    generate(photos, output, "-s", 2, "--shard-bytes", "300KB", "--val-fraction", 0.15)
    make_photos(output / "scale_2x/more", 2)
    assert len(open_shards(output / "scale_2x").val) == 7
    return output / "scale_2x"


def arguments(data: Path, out: Path, batch: int, *more: object) -> tuple[object, ...]:
    more = ("--val", f"more={data / 'more'}", *more)
    return ("--shards", data, "--out", out, *SMALL, "--batch-size", batch, "--steps", STEPS, "--val-every", 25, *more)


class Run(NamedTuple):
    """The folder of a run and the output of its command."""

    folder: Path
    output: str

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        return events(self.folder, *kinds)

    def weights(self) -> dict[str, torch.Tensor]:
        params: dict[str, torch.Tensor] = torch.load(self.folder / "model.pth", weights_only=True)["params"]
        return params


def flat(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with the metrics of all sets as its own, which `approx` requires."""
    own = {name: value for name, value in entry.items() if name != "sets"}
    sets = entry.get("sets", {})
    assert not sets or list(sets) == ["more"]
    return {**own, **{f"{name}/{metric}": value for name, values in sets.items() for metric, value in values.items()}}


def assert_alike(one: Run, other: Run) -> None:
    """Assert equality up to rounding: losses and weights within 1e-5, PSNR and SSIM within 1e-3."""
    for kind, within in (("train", 1e-5), ("val", 1e-3)):
        entries, others = one.events(kind), other.events(kind)
        assert len(entries) > 2 and len(entries) == len(others)
        for a, b in zip(map(flat, entries), map(flat, others), strict=True):
            assert a == pytest.approx({**b, "event": kind}, abs=within)
    weights = other.weights()
    assert all(torch.allclose(w, weights[name], rtol=0, atol=1e-5) for name, w in one.weights().items())


def assert_equal(one: Run, other: Run) -> None:
    assert one.events("train", "val") == other.events("train", "val")
    weights = other.weights()
    assert all(torch.equal(weight, weights[name]) for name, weight in one.weights().items())


# ---- several processes


TORCHRUN = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "job",
    "TORCHELASTIC_RESTART_COUNT": "0",
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def ranks_of(
    count: int, out: Path, *args: object, restarts: int = 0, prepare: Prepare | None = None
) -> Iterator[list[Warm]]:
    """Yield the processes, by rank, that torchrun would start for the run `r`. All have ended afterwards."""
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": free_port()}
    ranks = []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(count):
            own = {"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RESTART_COUNT": restarts}
            for name, value in {**TORCHRUN, **common, **own}.items():
                patch.setenv(name, str(value))
            ranks.append(Warm("trainer", *args, "--run", "r", prepare=prepare))
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
    wait_until(lambda: not any(living(rank.pid) for rank in ranks))


def wait(ranks: list[Warm]) -> tuple[set[int], str]:
    """Return the exit codes and the output of all ranks."""
    results = [rank.wait(2 * TIMEOUT_S) for rank in ranks]
    return {result.code for result in results}, "".join(result.out + result.err for result in results)


def living(session: int) -> list[psutil.Process]:
    """Return the living processes of a session."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def steps_of(out: Path) -> int:
    """Return the number of training entries in the log of the run `r`."""
    path = out / "r" / "journal.jsonl"
    return path.read_text().count('"train"') if path.exists() else 0


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One process with batches of 16."""
    out = tmp_path_factory.mktemp("one")
    result = trainer(*arguments(data, out, 16), "--run", "r")
    assert result.code == 0, result.err
    return Run(out / "r", result.err + result.out)


def run_of(count: int, data: Path, out: Path) -> Run:
    """Train with `count` processes and a total batch of 16 patches."""
    with ranks_of(count, out, *arguments(data, out, 16 // count)) as ranks:
        codes, output = wait(ranks)
    assert codes == {0}, output
    return Run(out / "r", output)


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two processes with batches of 8."""
    return run_of(2, data, tmp_path_factory.mktemp("two"))


def test_two_ranks_train_like_one_process(one: Run, two: Run) -> None:
    assert_alike(one, two)
    pictures = [[Image.open(path).size for path in sorted((run.folder / "previews").iterdir())] for run in (one, two)]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 3


def test_four_ranks_train_like_one_process(one: Run, data: Path, tmp_path: Path) -> None:
    assert_alike(one, run_of(4, data, tmp_path))


def test_only_rank_0_prints_and_writes(two: Run) -> None:
    for part in ("Ranks    2 processes, 8 patches per step each", "each 16 patches", "Step 25, val: ", "60 steps in "):
        assert two.output.count(part) == 1, two.output
    assert "Traceback" not in two.output and "FutureWarning" not in two.output
    assert yaml.safe_load((two.folder / "config.yaml").read_text())["ranks"] == 2
    assert {path.name for path in two.folder.iterdir()} == {
        *(".lock", ".job", "config.yaml", "plan.json", "journal.jsonl", "tensorboard", "previews"),
        *("model.pth", "best.pth", "state.pt"),
    }
    assert len(list((two.folder / "tensorboard").iterdir())) == 1


def test_torchrun_restarts_a_killed_rank_with_the_same_result(data: Path, two: Run, tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", 2, "--max-restarts", 1, "-m", "--"]
    args = arguments(data, tmp_path, 8, "--save-every", 3, "--run", "r")
    command = [sys.executable, "-m", *map(str, [*launcher, "trainer", *args])]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as torchrun:
        wait_until(lambda: torchrun.poll() is not None or (tmp_path / "r" / "state.pt").exists())
        ranks = psutil.Process(torchrun.pid).children()
        next(rank for rank in ranks if rank.environ().get("RANK") == "1").kill()
        output, _ = torchrun.communicate(timeout=2 * TIMEOUT_S)
    assert torchrun.returncode == 0 and "FutureWarning" not in output, output
    (step,) = map(int, re.findall(r"resumed at step (\d+)", output))
    assert 0 < step < STEPS and step % 3 == 0
    assert_equal(Run(tmp_path / "r", output), two)


def test_a_signal_to_one_rank_stops_all_and_one_process_can_resume(data: Path, one: Run, tmp_path: Path) -> None:
    with ranks_of(2, tmp_path, *arguments(data, tmp_path, 8)) as ranks:
        wait_until(lambda: steps_of(tmp_path) > 1 or not ranks[1].is_alive)
        os.kill(ranks[1].pid, signal.SIGTERM)
        codes, output = wait(ranks)
    assert codes == {143}, output
    (step,) = map(int, re.findall(r"Stopped after step (\d+) of 60; everything is saved.", output))
    assert 0 < step < STEPS
    assert f"torchrun ... -m -- trainer --out {tmp_path} --run r --resume" in output
    result = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert result.code == 0, result.err
    assert "it is computed as 1 x 2 x 8" in result.err
    assert f"resumed at step {step}" in result.err
    assert_alike(one, Run(tmp_path / "r", result.err))


def one_rank_hangs(before: bool) -> None:
    """Stop rank 1 in its fifth step, before or after it has sent its gradients."""
    from trainer.distributed import group
    from trainer.training.learner import Learner

    group._STEP_TIMEOUT = timedelta(seconds=5)
    real = Learner.step

    def step(self: Learner, index: int, *args: Any) -> Any:
        hangs = index == 4 and os.environ["RANK"] == "1"
        if hangs and before:
            os.kill(os.getpid(), signal.SIGSTOP)
        loss = real(self, index, *args)
        if hangs and not before:
            os.kill(os.getpid(), signal.SIGSTOP)
        return loss

    Learner.step = step  # type: ignore[method-assign]


@pytest.mark.parametrize("before", [True, False])
def test_a_rank_that_hangs_is_reported(before: bool, data: Path, tmp_path: Path) -> None:
    args = arguments(data, tmp_path, 8, "--save-every", 3)
    with ranks_of(2, tmp_path, *args, prepare=(one_rank_hangs, (before,))) as ranks:
        waiting = ranks[0].wait()
        assert waiting.code == 1 and waiting.err.count("Error: ") == 1, waiting.err
        assert re.search(
            r"\nError: rank 0 timed out waiting for another process of this training \(.*timed out.*\); one of the "
            "others hangs: check their machines, then resume the run",
            waiting.err,
            re.IGNORECASE,
        ), waiting.err
        os.kill(ranks[1].pid, signal.SIGCONT)
        lost = ranks[1].wait()
    assert lost.code == 1 and "Error: lost connection to the other processes of this training (" in lost.err
    assert torch.load(tmp_path / "r" / "state.pt", weights_only=True)["progress"]["step"] == 3


def one_rank_finds_validations_slow() -> None:
    """For one of two ranks, validations take too long at any interval, for the other one they take no time."""
    from trainer.training import cadence, plan

    plan._MIN_VAL_EVERY = plan._MAX_VAL_EVERY = 2
    cadence.MAX_SHARE = 1e-9 if os.environ["RANK"] == "1" else 1.0


def test_ranks_validate_after_the_same_steps(data: Path, tmp_path: Path) -> None:
    args = ("--shards", data, "--out", tmp_path, *SMALL, "--batch-size", 2, "--steps", 9)
    with ranks_of(2, tmp_path, *args, prepare=(one_rank_finds_validations_slow, ())) as ranks:
        codes, output = wait(ranks)
    assert codes == {0} and output.count("from now on every 8 steps") == 1, output
    assert [line["step"] for line in Run(tmp_path / "r", output).events("val")] == [2, 4, 8, 9]


def one_rank_fails_in_step_3() -> None:
    from trainer.training.learner import Learner

    step = Learner.step

    def failing(self: Learner, index: int, *args: Any) -> Any:
        if index == 2 and os.environ["RANK"] == "1":
            raise RunError("this rank alone has failed")
        return step(self, index, *args)

    Learner.step = failing  # type: ignore[method-assign]


def test_the_others_end_when_a_rank_fails(data: Path, tmp_path: Path) -> None:
    """While what the ranks agree on after a step is being exchanged."""
    with ranks_of(2, tmp_path, *arguments(data, tmp_path, 2), prepare=(one_rank_fails_in_step_3, ())) as ranks:
        codes, output = wait(ranks)
    assert codes == {1} and output.count("Error: ") == 2, output
    assert "Error: this rank alone has failed" in output
    assert "Error: lost connection to the other processes of this training (" in output
    assert "); see the error of the process that exited first" in output


def test_ranks_share_downloads_and_one_uploads(
    s3: Bucket, data: Path, two: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a rank dies: the run resumes from the state in the store, and no shard is fetched twice."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shards = s3.put_folder(data, "shards/scale_2x")
    args = arguments(data, tmp_path, 8, "--save-every", 3, "--workers", 1)[2:]
    args = ("--shards", shards, *args, "--out", f"{s3.address}/runs", "--cache", tmp_path / "cache")
    with ranks_of(2, tmp_path, *args) as ranks:
        wait_until(lambda: s3.proxy.count("PUT", "*/state.pt") > 1 or not ranks[1].is_alive)
        ranks[1].kill()
    with ranks_of(2, tmp_path, *args, restarts=1) as ranks:
        codes, output = wait(ranks)
    assert codes == {0}, output
    assert re.search(r"Run      s3://.*/runs/r, resumed at step \d+", output), output
    assert {s3.proxy.count("GET", f"*/{path.name}") for path in data.glob("*.tar")} == {1}
    run = tmp_path / "r"
    run.mkdir()
    for name in ("model.pth", "journal.jsonl"):
        (run / name).write_bytes(s3.objects("runs/r")[name])
    assert_equal(Run(run, output), two)
    assert not [path for path in tmp_path.glob("sr-run-*") if path.is_dir() and "journal.jsonl" in os.listdir(path)]


def test_missing_shards_in_a_store_are_reported_once(s3: Bucket, data: Path, tmp_path: Path) -> None:
    args = ("--shards", f"{s3.address}/none", *arguments(data, tmp_path, 8)[2:], "--cache", tmp_path / "cache")
    with ranks_of(2, tmp_path, *args) as ranks:
        codes, output = wait(ranks)
    assert codes == {2}, output
    assert output.count(f"Error: --shards {s3.address}/none: this folder has no manifest.json") == 1, output


def test_damage_found_by_one_rank_stops_all_with_one_message(data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    records = open_shards(data).train.records
    schedule = Schedule([r.samples for r in records], [r.bytes for r in records], 0, 16)
    first = set(schedule.batch(0).numbers.tolist())
    number = next(n for n in range(records[0].samples) if n not in first)
    member = load_index(data / f"{records[0].name}.idx")[number][0]
    overwrite(copy / f"{records[0].name}.tar", member.offset, bytes(20))
    with ranks_of(2, tmp_path, *arguments(copy, tmp_path, 8, "--save-every", 1)) as ranks:
        codes, output = wait(ranks)
    assert codes == {1}, output
    assert output.count("Damaged sample replaced by another one: ") == 1
    assert output.count("Error: ") == 1 and "\nError: 1 of 33 samples are damaged, more than 0.1%" in output
    run = Run(tmp_path / "r", output)
    assert len(run.events("damaged")) == len(run.events("error")) == 1
    # After a resume, all ranks know the damage that is counted in the state.
    state = torch.load(run.folder / "state.pt", weights_only=True)
    assert state["progress"]["damaged"] == []
    state["progress"]["damaged"] = [number]
    torch.save(state, run.folder / "state.pt")
    with ranks_of(2, tmp_path, "--out", tmp_path, "--resume", "--save-every", STEPS) as ranks:
        codes, output = wait(ranks)
    assert codes == {0}, output
    assert "resumed at step" in output and "Damaged" not in output


def accept_all_damage() -> None:
    from trainer.training import damage

    damage._MAX_DAMAGED_SHARE = 1.0


def test_damage_in_the_last_step_is_reported(data: Path, tmp_path: Path) -> None:
    """Ranks learn of each other's damage one step late, but the state has all damage up to its step."""
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    records = open_shards(data).train.records
    schedule = Schedule([r.samples for r in records], [r.bytes for r in records], 0, 4)
    number = shard_number = int(schedule.batch(2).numbers[-1])  # one of rank 1's
    for record in records:
        if shard_number < record.samples:
            break
        shard_number -= record.samples
    member = load_index(data / f"{record.name}.idx")[shard_number][0]
    overwrite(copy / f"{record.name}.tar", member.offset, bytes(20))
    args = ("--shards", copy, "--out", tmp_path, *SMALL, "--batch-size", 2, "--steps", 3)
    with ranks_of(2, tmp_path, *args, prepare=(accept_all_damage, ())) as ranks:
        codes, output = wait(ranks)
    assert codes == {0}, output
    assert output.count("Damaged sample replaced by another one: ") == 1, output
    assert [line["step"] for line in Run(tmp_path / "r", output).events("damaged")] == [3]
    state = torch.load(tmp_path / "r" / "state.pt", weights_only=True)
    assert state["progress"]["damaged"] == [number]


# ---- the environment of torchrun


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets the environment as torchrun does, by default for one process."""

    def launch(**changes: object) -> None:
        for name, value in {**TORCHRUN, **changes}.items():
            monkeypatch.setenv(name, str(value))

    return launch


def test_rank_info_is_read_from_the_environment() -> None:
    assert RankInfo.from_environment({}) == SINGLE_PROCESS
    environment = {**TORCHRUN, "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert RankInfo.from_environment({**environment, "TORCHELASTIC_RESTART_COUNT": "2"}) == RankInfo(
        5, 8, 1, 4, 2, "job"
    )
    unnamed = [RankInfo.from_environment({**environment, "TORCHELASTIC_RUN_ID": name}).job for name in ("none", "")]
    assert unnamed[0] == unnamed[1] and str(os.getppid()) in str(unnamed[0]), "the parent process identifies the job"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"LOCAL_RANK": ""},
            "the environment sets RANK, WORLD_SIZE but not LOCAL_RANK; start several processes with",
        ),
        ({"MASTER_ADDR": ""}, "not MASTER_ADDR"),
        ({"WORLD_SIZE": "two"}, "expected integers in the environment, found RANK=0, WORLD_SIZE=two"),
        ({"RANK": "1"}, "the environment is inconsistent: RANK=1, WORLD_SIZE=1"),
        ({"LOCAL_WORLD_SIZE": "2"}, "the environment is inconsistent"),
    ],
)
def test_an_inconsistent_environment_is_refused(
    changes: dict[str, str], message: str, data: Path, tmp_path: Path, launched: Callable[..., None]
) -> None:
    launched(**changes)
    result = trainer(*arguments(data, tmp_path, 8))
    assert result.code == 2 and result.err.startswith("Error: ") and message in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rendezvous_timeout_is_reported(
    rank: int, data: Path, tmp_path: Path, launched: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.distributed.rendezvous._TIMEOUT", timedelta(seconds=1))
    port = free_port()
    launched(RANK=rank, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, LOCAL_RANK=rank, MASTER_PORT=port)
    result = trainer(*arguments(data, tmp_path, 8))
    assert result.code == 1, result.err
    assert f"Error: rank {rank} of 2 could not join the others at 127.0.0.1:{port} within 1 s (" in result.err
    assert "start the same torchrun command on every machine" in result.err


def test_entries_of_a_previous_attempt_are_ignored(
    launched: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun reuses its store, which contains addresses of the previous attempt."""
    agent = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    launched(MASTER_PORT=agent.port, TORCHELASTIC_USE_AGENT_STORE="True")
    ranks = [RankInfo(rank, 2, rank, 2) for rank in range(2)]
    for attempt in range(3):
        joined: dict[int, Any] = {}
        thread = threading.Thread(target=lambda found=joined: found.update({1: join_attempt(ranks[1])}))
        thread.start()  # finds the entries of the previous attempt, if any
        joined[0] = join_attempt(ranks[0])
        thread.join(TIMEOUT_S)
        assert joined[0].restarted == (attempt > 0)
        assert not joined[1].store.check(["address"])
        joined[0].store.set("address", str(attempt))
        assert joined[1].store.get("address") == str(attempt).encode()


def test_missing_ranks_are_reported(launched: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.distributed.rendezvous._TIMEOUT", timedelta(seconds=1))
    agent = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    launched(MASTER_PORT=agent.port, TORCHELASTIC_USE_AGENT_STORE="True")
    with pytest.raises(RunError, match=r"within 1 s \(missing rank 1, 2\)"):
        join_attempt(RankInfo(0, 3, 0, 3))
    with pytest.raises(RunError, match=r"rank 2 of 3 could not join .* \(rank 0 does not respond\)"):
        join_attempt(RankInfo(2, 3, 2, 3))


def test_other_commands_refuse_several_processes(launched: Callable[..., None]) -> None:
    launched(WORLD_SIZE=2, LOCAL_WORLD_SIZE=2)
    result = trainer("export", "--weights", "w.pth", "-o", "x.onnx")
    assert result.code == 2 and "export runs in a single process; start it without torchrun" in result.err
    launched(WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, RANK=1, LOCAL_RANK=1)
    result = trainer("export", "--weights", "w.pth", "-o", "x.onnx")
    assert result.code == 2 and result.err == "", "only rank 0 prints it"


# ---- restarts


@pytest.mark.parametrize("name", [(), ("--run", "named")])
def test_a_restarted_command_resumes_its_run(
    name: tuple[str, ...], data: Path, tmp_path: Path, launched: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("--shards", data, "--out", tmp_path, *SMALL, "--batch-size", 4, "--steps", 5, *name)
    assert trainer(*command[:-2] if name else command, "--seed", 1).code == 0, "an older run of another job"
    launched()
    with monkeypatch.context() as patch:
        on_step(patch, 3, terminate)
        assert trainer(*command).code == 143
    folder = tmp_path / (name[1] if name else "ultra_lite-2x-2")
    launched(TORCHELASTIC_RESTART_COUNT=1)
    result = trainer(*command)
    assert result.code == 0 and f"Run      {folder}, resumed at step 3" in result.err
    for file in ("state.pt", "model.pth"):
        (folder / file).unlink()
    result = trainer(*command)
    assert result.code == 0 and f"Run      {folder}\n" in result.err, "restarts if nothing was saved yet"
    assert len(Run(folder, "").events("train")) == 5
    launched(TORCHELASTIC_RESTART_COUNT=1, TORCHELASTIC_RUN_ID="another job")
    result = trainer(*command)
    if name:
        assert result.code == 2 and f"{folder} already exists; continue it with --resume" in result.err
    else:
        assert result.code == 0 and f"Run      {tmp_path / 'ultra_lite-2x-3'}\n" in result.err


@pytest.mark.parametrize("name", [(), ("--run", "named")])
def test_runs_of_earlier_commands_with_the_same_id_are_not_resumed(
    name: tuple[str, ...], data: Path, tmp_path: Path, launched: Callable[..., None]
) -> None:
    command = ("--shards", data, "--out", tmp_path, *SMALL, "--batch-size", 4, "--steps", 2, *name)
    launched()
    assert trainer(*command).code == 0
    settings = (tmp_path / (name[1] if name else "ultra_lite-2x") / "config.yaml").stat()
    for attempt in range(2):
        launched(TORCHELASTIC_RESTART_COUNT=attempt)
        result = trainer(*command)
        if name:
            assert result.code == 2 and f"{tmp_path / 'named'} already exists; continue it with --resume" in result.err
        else:
            folder = tmp_path / "ultra_lite-2x-2"
            found = f"{folder} has already finished" in result.out if attempt else f"Run      {folder}\n" in result.err
            assert found, result
    assert (tmp_path / (name[1] if name else "ultra_lite-2x") / "config.yaml").stat() == settings


def test_a_job_that_died_before_writing_its_settings_keeps_its_folder(
    data: Path, tmp_path: Path, launched: Callable[..., None]
) -> None:
    launched(TORCHELASTIC_RESTART_COUNT=1)
    (tmp_path / "ultra_lite-2x").mkdir()
    (tmp_path / "ultra_lite-2x" / ".job").write_text("job")
    result = trainer("--shards", data, "--out", tmp_path, *SMALL, "--batch-size", 4, "--steps", 1)
    assert result.code == 0 and f"Run      {tmp_path / 'ultra_lite-2x'}\n" in result.err


def test_an_adopted_stop_keeps_the_second_interrupt() -> None:
    with StopRequest() as stop:
        stop.adopt(0)
        assert not stop
        stop.adopt(signal.SIGINT)
        assert stop and stop.signal_number == signal.SIGINT
        signal.raise_signal(signal.SIGINT)  # the same Ctrl-C, which torchrun forwards to each rank
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# ---- sharing the work


def settings(data: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(data, patch_size=24, device="cpu", **{"workers": 0, **changes})


def rank_info(rank: int, ranks: int) -> RankInfo:
    return RankInfo(rank, ranks, rank, ranks)


@pytest.mark.parametrize(
    ("batch", "accum", "ranks", "num_ranks", "expected"),
    [
        (16, 1, 1, 1, (16, 1)),
        (8, 1, 2, 2, (8, 1)),
        (8, 3, 2, 2, (8, 3)),
        (8, 1, 2, 1, (8, 2)),
        (8, 1, 2, 4, (4, 1)),
        (6, 1, 2, 3, (4, 1)),
        (5, 1, 3, 1, (5, 3)),
        (4, 1, 5, 2, (2, 5)),
        (7, 1, 3, 7, (3, 1)),
    ],
)
def test_a_step_does_not_depend_on_the_number_of_ranks(
    batch: int, accum: int, ranks: int, num_ranks: int, expected: tuple[int, int], data: Path
) -> None:
    config = settings(data, batch_size=batch, grad_accum=accum, ranks=ranks)
    plans = [checked_plan(config, open_shards(data), rank_info(rank, num_ranks)) for rank in range(num_ranks)]
    assert {(plan.loader.batch_size, plan.loader.micro_batches) for plan in plans} == {expected}
    rows = [row for plan in plans for row in plan.loader._rows.of_step]
    assert rows == list(range(batch * accum * ranks))
    assert {plan.loader.patches_per_step for plan in plans} == {len(rows)}
    assert plans[0].config.batch_size == batch, "the configuration keeps the original values"
    assert ("it is computed as" in describe(plans[0])) == (ranks != num_ranks)


def test_an_indivisible_step_is_refused(data: Path) -> None:
    with pytest.raises(
        UsageError, match=r"has 16 patches, which is not divisible by 3 processes; .* 4 or 8 or 16 instead$"
    ):
        checked_plan(settings(data, batch_size=8, ranks=2), open_shards(data), rank_info(0, 3))


def test_one_process_can_compute_the_steps_of_two(data: Path, one: Run, tmp_path: Path) -> None:
    result = trainer(*arguments(data, tmp_path, 8, "--ranks", 2), "--run", "r")
    assert result.code == 0, result.err
    assert_alike(one, Run(tmp_path / "r", result.err))


def test_runs_without_the_setting_ranks_have_one(data: Path, tmp_path: Path) -> None:
    command = ("--shards", data, "--out", tmp_path, *SMALL, "--batch-size", 4, "--steps", 1, "--run", "r")
    assert trainer(*command).code == 0
    path = tmp_path / "r" / "config.yaml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "ranks" not in line))
    state = torch.load(tmp_path / "r" / "state.pt", weights_only=True)
    state["progress"]["validated"] = False  # resuming a finished run would not write its settings
    torch.save(state, tmp_path / "r" / "state.pt")
    result = trainer("--out", tmp_path, "--run", "r", "--resume", "--ranks", 2)
    assert result.code == 2 and "was started with --ranks 1, not --ranks 2" in result.err
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert yaml.safe_load(path.read_text())["ranks"] == 1


def test_processes_on_a_machine_share_cpus_and_memory(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srshards.loader.patch_loader.available_cpus", lambda: 9)
    folder, config = open_shards(data), settings(data, workers=None)
    assert [checked_plan(config, folder, rank_info(0, ranks)).loader.workers for ranks in (1, 4, 16)] == [9, 2, 1]
    needed = checked_plan(settings(data, workers=1), folder).loader.memory_bytes
    monkeypatch.setattr("srshards.loader.memory.available_memory_bytes", lambda: 3 * needed)
    assert checked_plan(settings(data, workers=1), folder, rank_info(0, 2)).loader.memory_bytes == needed
    with pytest.raises(ArgumentError, match=r"`workers` 1 and `prefetch` 16 need"):
        checked_plan(settings(data, workers=1), folder, rank_info(0, 4))
    images = 3 * (64**2 + 32**2) * len(folder.train)
    monkeypatch.setattr("srshards.loader.memory.available_memory_bytes", lambda: 2 * images)
    assert checked_plan(settings(data, resident=True), folder).loader.memory_bytes == images
    with pytest.raises(ArgumentError, match=r"`resident`: the images of 33 samples take"):
        checked_plan(settings(data, resident=True), folder, rank_info(0, 2))


def test_each_local_rank_gets_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("auto", 1) == choose_device("cpu", 0) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", 1) == choose_device("cuda", 1) == torch.device("cuda:1")
    assert choose_device("cuda") == torch.device("cuda")
    with pytest.raises(
        UsageError, match=r"no CUDA device for local rank 2: this machine has 2 CUDA devices; .* 2 to torchrun$"
    ):
        choose_device("auto", 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # of a scheduler that shows each process its own
    assert choose_device("auto", 2) == torch.device("cuda:0")
    for name in ("cuda:0", "mps"):
        with pytest.raises(UsageError, match=f"--device {name}: with torchrun, each process has its own device"):
            choose_device(name, 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_share_a_gpu_are_refused(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"uuid of {device}"))
    group = RankGroup(RankInfo(rank, 4, rank, 4))
    monkeypatch.setattr(group, "_process_group", object())
    gathered: list[tuple[str, str]] = []

    def all_gather(gpu: tuple[str, str]) -> list[tuple[str, str]]:
        gathered.append(gpu)
        return [gpu, ("another host", gpu[1]), (gpu[0], "another GPU"), gpu]

    monkeypatch.setattr(group, "all_gather", all_gather)
    with pytest.raises(ReportedError) as error:
        group.wrap_ddp(torch.nn.Linear(1, 1), torch.device("cuda:0"))
    assert gathered == [(socket.gethostname(), "uuid of cuda:0")]
    expected = (
        f"ranks 0, 3 use the same GPU (uuid of cuda:0 on {socket.gethostname()}); start one process per GPU "
        "(--nproc-per-node of torchrun), and if CUDA_VISIBLE_DEVICES is set, give each process its own GPU or let all "
        "of them see all GPUs"
    )
    assert error.value.exit_code == 2
    assert str(error.value) == expected if rank == 0 else isinstance(error.value, ReportedByRank0)


def test_the_mean_of_sums_equals_the_mean_over_all_images() -> None:
    inf = float("inf")
    images = [Quality(30.0, 31.5, 0.9, 0.91), Quality(inf, inf, 1.0, 1.0), Quality(20.25, 22.0, 0.5, 0.52)]
    for parts in ((images, []), (images[:1], images[1:]), (images[::2], images[1::2])):
        rows = [list(map(astuple, part)) for part in parts]
        sums = [sum(column) for column in zip(*(score_sums(part, 4) for part in rows), strict=True)]
        assert Quality(**mean_scores(OWN, sums)) == mean_quality(images)
    assert mean_quality(images).psnr_y == (31.5 + 22.0) / 2
    assert mean_quality(images[1:2]).psnr_y == inf
