"""Training in many processes: the same steps whatever their number, one that writes, and going on when one dies."""

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
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
import yaml
from helpers import PATIENCE_S, events, generate, overwrite, trainer, until
from PIL import Image
from torch.distributed import TCPStore

from srshards.errors import ArgumentError, RunError, UsageError
from srshards.sampling.schedule import Schedule
from srshards.shards.opening import open_shards
from srshards.shards.tar_index import load_index
from tests.drill.s3_server import Bucket
from tests.drill.warm import Warm
from trainer.distributed.rank import SINGLE_PROCESS, RankInfo
from trainer.distributed.rendezvous import join_attempt
from trainer.evaluation.metrics import Quality, mean_of_sums, mean_quality, quality_sums
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig
from trainer.training.describe import describe
from trainer.training.device import choose_device
from trainer.training.learner import Learner
from trainer.training.loop import TrainingLoop
from trainer.training.stopping import StopRequest

STEPS = 60
# A small rate: AdamW makes steps of full size out of gradients that are rounding errors alone.
SMALL = ("--model", "ultra_lite", "--patch-size", 24, "--workers", 0, "--device", "cpu", "--amp", "off", "--lr", 2e-5)


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with seven validation images, which two or four ranks cannot share equally."""
    output = tmp_path_factory.mktemp("shards")
    generate(photos, output, "-s", 2, "--shard-bytes", "300KB", "--val-fraction", 0.15)
    assert len(open_shards(output / "scale_2x").val) == 7
    return output / "scale_2x"


def words(data: Path, out: Path, batch: int, *more: object) -> tuple[object, ...]:
    return ("--shards", data, "--out", out, *SMALL, "--batch-size", batch, "--steps", STEPS, "--val-every", 25, *more)


class Run(NamedTuple):
    """A run's folder, and what the command printed."""

    folder: Path
    said: str

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        return events(self.folder, *kinds)

    def weights(self) -> dict[str, torch.Tensor]:
        params: dict[str, torch.Tensor] = torch.load(self.folder / "model.pth", weights_only=True)["params"]
        return params


def assert_alike(one: Run, other: Run) -> None:
    """But for rounding: losses to 1e-5, PSNR and SSIM to 1e-3 dB, weights to 1e-5."""
    for kind, within in (("train", 1e-5), ("val", 1e-3)):
        mine, others = one.events(kind), other.events(kind)
        assert len(mine) > 2 and len(mine) == len(others)
        assert all(a == pytest.approx({**b, "event": kind}, abs=within) for a, b in zip(mine, others, strict=True))
    weights = other.weights()
    assert all(torch.allclose(w, weights[name], rtol=0, atol=1e-5) for name, w in one.weights().items())


# ---- many processes


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
def ranks_of(count: int, out: Path, *args: object, restarts: int = 0) -> Iterator[list[Warm]]:
    """The processes that torchrun would start for the run `r`, by their rank. Nothing of them is left at the end."""
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": free_port()}
    ranks = []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(count):
            own = {"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RESTART_COUNT": restarts}
            for name, value in {**TORCHRUN, **common, **own}.items():
                patch.setenv(name, str(value))
            ranks.append(Warm("trainer", *args, "--run", "r"))
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
    until(lambda: not any(living(rank.pid) for rank in ranks))


def ended(ranks: list[Warm]) -> tuple[set[int], str]:
    """The exit codes of all ranks, and what they printed."""
    done = [rank.wait(2 * PATIENCE_S) for rank in ranks]
    return {each.code for each in done}, "".join(each.out + each.err for each in done)


def living(session: int) -> list[psutil.Process]:
    """The processes of a session, whoever is their parent by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def steps_of(out: Path) -> int:
    """The number of training entries in the journal of the run `r`."""
    path = out / "r" / "journal.jsonl"
    return path.read_text().count('"train"') if path.exists() else 0


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One process with batches of 16."""
    out = tmp_path_factory.mktemp("one")
    done = trainer(*words(data, out, 16), "--run", "r")
    assert done.code == 0, done.err
    return Run(out / "r", done.err + done.out)


def run_of(count: int, data: Path, out: Path) -> Run:
    """`count` processes with batches that are 16 patches together."""
    with ranks_of(count, out, *words(data, out, 16 // count)) as ranks:
        codes, said = ended(ranks)
    assert codes == {0}, said
    return Run(out / "r", said)


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two processes with batches of 8."""
    return run_of(2, data, tmp_path_factory.mktemp("two"))


@pytest.mark.slow
def test_two_ranks_train_as_one_does(one: Run, two: Run) -> None:
    assert_alike(one, two)
    pictures = [[Image.open(path).size for path in sorted((run.folder / "previews").iterdir())] for run in (one, two)]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 3


@pytest.mark.slow
def test_four_ranks_train_as_one_does(one: Run, data: Path, tmp_path: Path) -> None:
    assert_alike(one, run_of(4, data, tmp_path))


@pytest.mark.slow
def test_one_of_the_ranks_speaks_and_writes(two: Run) -> None:
    for part in ("Ranks    2 processes, 8 patches per step each", "each 16 patches", "Step 25: ", "60 steps in "):
        assert two.said.count(part) == 1, two.said
    assert "Traceback" not in two.said and "FutureWarning" not in two.said
    assert yaml.safe_load((two.folder / "config.yaml").read_text())["ranks"] == 2
    assert {path.name for path in two.folder.iterdir()} == {
        *(".lock", ".job", "config.yaml", "plan.json", "journal.jsonl", "tensorboard", "previews"),
        *("model.pth", "best.pth", "state.pt"),
    }
    assert len(list((two.folder / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_a_killed_rank_is_started_again_by_torchrun_and_changes_nothing(data: Path, two: Run, tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", 2, "--max-restarts", 1, "-m", "--"]
    args = words(data, tmp_path, 8, "--save-every", 3, "--run", "r")
    command = [sys.executable, "-m", *map(str, [*launcher, "trainer", *args])]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as torchrun:
        until(lambda: torchrun.poll() is not None or (tmp_path / "r" / "state.pt").exists())
        ranks = psutil.Process(torchrun.pid).children()
        next(rank for rank in ranks if rank.environ().get("RANK") == "1").kill()
        said, _ = torchrun.communicate(timeout=2 * PATIENCE_S)
    assert torchrun.returncode == 0 and "FutureWarning" not in said, said
    (step,) = map(int, re.findall(r"resumed at step (\d+)", said))
    assert 0 < step < STEPS and step % 3 == 0
    assert_equal(Run(tmp_path / "r", said), two)


def assert_equal(one: Run, other: Run) -> None:
    assert one.events("train", "val") == other.events("train", "val")
    weights = other.weights()
    assert all(torch.equal(weight, weights[name]) for name, weight in one.weights().items())


@pytest.mark.slow
def test_a_stop_of_one_rank_stops_all_and_one_process_goes_on(data: Path, one: Run, tmp_path: Path) -> None:
    with ranks_of(2, tmp_path, *words(data, tmp_path, 8)) as ranks:
        until(lambda: steps_of(tmp_path) > 1 or not ranks[1].is_alive)
        os.kill(ranks[1].pid, signal.SIGTERM)
        codes, said = ended(ranks)
    assert codes == {143}, said
    (step,) = map(int, re.findall(r"Stopped after step (\d+) of 60; everything is saved.", said))
    assert 0 < step < STEPS
    assert f"torchrun ... -m -- trainer --out {tmp_path} --run r --resume" in said
    done = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert done.code == 0, done.err
    assert "it is computed as 1 x 2 x 8" in done.err
    assert f"resumed at step {step}" in done.err
    assert_alike(one, Run(tmp_path / "r", done.err))


@pytest.mark.slow
def test_ranks_share_what_comes_from_a_store_and_one_writes_there(
    s3: Bucket, data: Path, two: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank dies on the way: the state is found in the store, and nothing is fetched twice."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shards = s3.put_folder(data, "shards/scale_2x")
    args = words(data, tmp_path, 8, "--save-every", 3, "--workers", 1)[2:]
    args = ("--shards", shards, *args, "--out", f"{s3.address}/runs", "--cache", tmp_path / "cache")
    with ranks_of(2, tmp_path, *args) as ranks:
        until(lambda: s3.proxy.count("PUT", "*/state.pt") > 1 or not ranks[1].is_alive)
        ranks[1].kill()
    with ranks_of(2, tmp_path, *args, restarts=1) as ranks:
        codes, said = ended(ranks)
    assert codes == {0}, said
    assert re.search(r"Run      s3://.*/runs/r, resumed at step \d+", said), said
    assert {s3.proxy.count("GET", f"*/{path.name}") for path in data.glob("*.tar")} == {1}
    run = tmp_path / "r"
    run.mkdir()
    for name in ("model.pth", "journal.jsonl"):
        (run / name).write_bytes(s3.objects("runs/r")[name])
    assert_equal(Run(run, said), two)
    assert not [path for path in tmp_path.glob("sr-run-*") if path.is_dir() and "journal.jsonl" in os.listdir(path)]


def test_a_store_that_gives_nothing_is_named_once(s3: Bucket, data: Path, tmp_path: Path) -> None:
    args = ("--shards", f"{s3.address}/none", *words(data, tmp_path, 8)[2:], "--cache", tmp_path / "cache")
    with ranks_of(2, tmp_path, *args) as ranks:
        codes, said = ended(ranks)
    assert codes == {2}, said
    assert said.count(f"Error: --shards {s3.address}/none: this folder has no manifest.json") == 1, said


@pytest.mark.slow
def test_what_one_rank_finds_damaged_ends_all_with_one_message(data: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(data, tmp_path / "mine"))
    records = open_shards(data).train.records
    schedule = Schedule([r.samples for r in records], [r.bytes for r in records], 0, 16)
    first = set(schedule.batch(0).numbers.tolist())
    number = next(n for n in range(records[0].samples) if n not in first)
    member = load_index(data / f"{records[0].name}.idx")[number][0]
    overwrite(mine / f"{records[0].name}.tar", member.offset, bytes(20))
    with ranks_of(2, tmp_path, *words(mine, tmp_path, 8, "--save-every", 1)) as ranks:
        codes, said = ended(ranks)
    assert codes == {1}, said
    assert said.count("Damaged sample replaced by another one: ") == 1
    assert said.count("Error: ") == 1 and "\nError: 1 of 33 samples are damaged, more than 0.1%" in said
    run = Run(tmp_path / "r", said)
    assert len(run.events("damaged")) == len(run.events("error")) == 1
    # After a resume, all ranks know the damage that the state already counts.
    state = torch.load(run.folder / "state.pt", weights_only=True)
    assert state["progress"]["damaged"] == []
    state["progress"]["damaged"] = [number]
    torch.save(state, run.folder / "state.pt")
    with ranks_of(2, tmp_path, "--out", tmp_path, "--resume", "--save-every", STEPS) as ranks:
        codes, said = ended(ranks)
    assert codes == {0}, said
    assert "resumed at step" in said and "Damaged" not in said


# ---- what torchrun says


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the environment as torchrun does, by default for one process."""

    def launch(**changes: object) -> None:
        for name, value in {**TORCHRUN, **changes}.items():
            monkeypatch.setenv(name, str(value))

    return launch


def test_the_rank_is_read_from_the_environment() -> None:
    assert RankInfo.from_environment({}) == SINGLE_PROCESS
    environment = {**TORCHRUN, "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert RankInfo.from_environment({**environment, "TORCHELASTIC_RESTART_COUNT": "2"}) == RankInfo(
        5, 8, 1, 4, 2, "job"
    )
    unnamed = [RankInfo.from_environment({**environment, "TORCHELASTIC_RUN_ID": name}).job for name in ("none", "")]
    assert unnamed[0] == unnamed[1] and str(os.getppid()) in str(unnamed[0]), "torchrun's process stands for its job"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"LOCAL_RANK": ""},
            "the environment sets RANK, WORLD_SIZE but not LOCAL_RANK: start several processes with",
        ),
        ({"MASTER_ADDR": ""}, "not MASTER_ADDR"),
        ({"WORLD_SIZE": "two"}, "expected integers in the environment, found RANK=0, WORLD_SIZE=two"),
        ({"RANK": "1"}, "the environment is inconsistent: RANK=1, WORLD_SIZE=1"),
        ({"LOCAL_WORLD_SIZE": "2"}, "the environment is inconsistent"),
    ],
)
def test_an_environment_that_is_half_set_is_refused(
    changes: dict[str, str], message: str, data: Path, tmp_path: Path, launched: Callable[..., None]
) -> None:
    launched(**changes)
    done = trainer(*words(data, tmp_path, 8))
    assert done.code == 2 and done.err.startswith("Error: ") and message in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rank", [0, 1])
def test_a_group_that_does_not_come_together_is_an_error(
    rank: int, data: Path, tmp_path: Path, launched: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.distributed.rendezvous._TIMEOUT", timedelta(seconds=1))
    port = free_port()
    launched(RANK=rank, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, LOCAL_RANK=rank, MASTER_PORT=port)
    done = trainer(*words(data, tmp_path, 8))
    assert done.code == 1, done.err
    assert f"Error: rank {rank} of 2 could not join the others at 127.0.0.1:{port} within 1 s (" in done.err
    assert "start the same torchrun command on every machine" in done.err


def test_an_attempt_is_not_taken_for_the_one_before(
    launched: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun gives every attempt the same store, with the addresses of the dead in it."""
    agent = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    launched(MASTER_PORT=agent.port, TORCHELASTIC_USE_AGENT_STORE="True")
    places = [RankInfo(rank, 2, rank, 2) for rank in range(2)]
    for attempt in range(3):
        met: dict[int, Any] = {}
        late = threading.Thread(target=lambda found=met: found.update({1: join_attempt(places[1])}))
        late.start()  # the first time there is nothing; then it finds what the attempt before has left
        met[0] = join_attempt(places[0])
        late.join(PATIENCE_S)
        assert met[0].restarted == (attempt > 0)
        assert not met[1].store.check(["address"])
        met[0].store.set("address", str(attempt))
        assert met[1].store.get("address") == str(attempt).encode()


def test_who_is_missing_is_named(launched: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.distributed.rendezvous._TIMEOUT", timedelta(seconds=1))
    agent = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    launched(MASTER_PORT=agent.port, TORCHELASTIC_USE_AGENT_STORE="True")
    with pytest.raises(RunError, match=r"within 1 s \(missing rank 1, 2\)"):
        join_attempt(RankInfo(0, 3, 0, 3))
    with pytest.raises(RunError, match=r"rank 2 of 3 could not join .* \(rank 0 does not respond\)"):
        join_attempt(RankInfo(2, 3, 2, 3))


def test_other_commands_are_for_one_process(launched: Callable[..., None]) -> None:
    launched(WORLD_SIZE=2, LOCAL_WORLD_SIZE=2)
    done = trainer("export", "--weights", "w.pth", "-o", "x.onnx")
    assert done.code == 2 and "export runs in a single process; start it without torchrun" in done.err
    launched(WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, RANK=1, LOCAL_RANK=1)
    done = trainer("export", "--weights", "w.pth", "-o", "x.onnx")
    assert done.code == 2 and done.err == "", "rank 0 has said it"


# ---- started again


def terminate_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    real = Learner.step

    def then_terminate(learner: Learner, index: int, batches: Iterator[Any]) -> torch.Tensor:
        loss = real(learner, index, batches)
        if index + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return loss

    monkeypatch.setattr(Learner, "step", then_terminate)


@pytest.mark.parametrize("name", [(), ("--run", "mine")])
def test_the_same_command_goes_on_when_torchrun_starts_it_again(
    name: tuple[str, ...], data: Path, tmp_path: Path, launched: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("--shards", data, "--out", tmp_path, *SMALL, "--batch-size", 4, "--steps", 5, *name)
    assert trainer(*command[:-2] if name else command, "--seed", 1).code == 0, "an older run, of somebody else"
    launched()
    with monkeypatch.context() as patch:
        terminate_after(patch, 3)
        assert trainer(*command).code == 143
    folder = tmp_path / (name[1] if name else "ultra_lite-2x-2")
    launched(TORCHELASTIC_RESTART_COUNT=1)
    done = trainer(*command)
    assert done.code == 0 and f"Run      {folder}, resumed at step 3" in done.err
    for file in ("state.pt", "model.pth"):
        (folder / file).unlink()
    done = trainer(*command)
    assert done.code == 0 and f"Run      {folder}\n" in done.err, "from the beginning, where nothing was saved yet"
    assert len(Run(folder, "").events("train")) == 5
    launched(TORCHELASTIC_RESTART_COUNT=1, TORCHELASTIC_RUN_ID="another job")
    done = trainer(*command)
    if name:
        assert done.code == 2 and f"{folder} already exists; continue it with --resume" in done.err
    else:
        assert done.code == 0 and f"Run      {tmp_path / 'ultra_lite-2x-3'}\n" in done.err


@pytest.mark.parametrize("name", [(), ("--run", "mine")])
def test_what_a_former_command_of_the_same_id_began_is_not_gone_on_with(
    name: tuple[str, ...], data: Path, tmp_path: Path, launched: Callable[..., None]
) -> None:
    command = ("--shards", data, "--out", tmp_path, *SMALL, "--batch-size", 4, "--steps", 2, *name)
    launched()
    assert trainer(*command).code == 0
    settings = (tmp_path / (name[1] if name else "ultra_lite-2x") / "config.yaml").stat()
    for attempt in range(2):
        launched(TORCHELASTIC_RESTART_COUNT=attempt)
        done = trainer(*command)
        if name:
            assert done.code == 2 and f"{tmp_path / 'mine'} already exists; continue it with --resume" in done.err
        else:
            resumed = ", resumed at step 2" * attempt
            assert f"Run      {tmp_path / 'ultra_lite-2x-2'}{resumed}\n" in done.err
    assert (tmp_path / (name[1] if name else "ultra_lite-2x") / "config.yaml").stat() == settings


def test_a_job_that_died_before_it_wrote_its_settings_begins_where_it_was(
    data: Path, tmp_path: Path, launched: Callable[..., None]
) -> None:
    launched(TORCHELASTIC_RESTART_COUNT=1)
    (tmp_path / "ultra_lite-2x").mkdir()
    (tmp_path / "ultra_lite-2x" / ".job").write_text("job")
    done = trainer("--shards", data, "--out", tmp_path, *SMALL, "--batch-size", 4, "--steps", 1)
    assert done.code == 0 and f"Run      {tmp_path / 'ultra_lite-2x'}\n" in done.err


def test_steps_between_saves(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    real = TrainingLoop._save

    def save(loop: TrainingLoop) -> None:
        real(loop)
        saved.append(torch.load(tmp_path / "r" / "state.pt", weights_only=True)["progress"]["step"])

    monkeypatch.setattr("trainer.training.loop._SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(TrainingLoop, "_save", save)
    command = ("--shards", data, "--out", tmp_path, *SMALL, "--batch-size", 4, "--steps", 7, "--val-every", 5)
    assert trainer(*command, "--run", "r", "--save-every", 3).code == 0
    assert saved == [3, 5, 6, 7]
    assert "--save-every 0: expected 1 or more" in trainer(*command, "--save-every", 0).err


def test_a_stop_that_came_to_another_process_leaves_the_own_signal_its_meaning() -> None:
    with StopRequest() as stop:
        stop.adopt(0)
        assert not stop
        stop.adopt(signal.SIGINT)
        assert stop and stop.signal_number == signal.SIGINT
        signal.raise_signal(signal.SIGINT)  # the same Ctrl-C, which torchrun hands to one rank after the other
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# ---- who does what


def settings(data: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(data, patch_size=24, device="cpu", **{"workers": 0, **changes})


def rank_info(rank: int, ranks: int) -> RankInfo:
    return RankInfo(rank, ranks, rank, ranks)


@pytest.mark.parametrize(
    ("batch", "accum", "ranks", "at_work", "now"),
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
def test_a_step_stays_what_it_was_whoever_shares_it(
    batch: int, accum: int, ranks: int, at_work: int, now: tuple[int, int], data: Path
) -> None:
    config = settings(data, batch_size=batch, grad_accum=accum, ranks=ranks)
    plans = [checked_plan(config, open_shards(data), rank_info(rank, at_work)) for rank in range(at_work)]
    assert {(plan.loader.batch_size, plan.loader.micro_batches) for plan in plans} == {now}
    rows = [row for plan in plans for row in plan.loader._rows.of_step]
    assert rows == list(range(batch * accum * ranks))
    assert {plan.loader.patches_per_step for plan in plans} == {len(rows)}
    assert plans[0].config.batch_size == batch, "what is written down stays, for whoever goes on afterwards"
    assert ("it is computed as" in describe(plans[0])) == (ranks != at_work)


def test_a_step_that_cannot_be_shared_is_refused(data: Path) -> None:
    with pytest.raises(
        UsageError, match=r"has 16 patches, which is not divisible by 3 processes; .* 4 or 8 or 16 processes$"
    ):
        checked_plan(settings(data, batch_size=8, ranks=2), open_shards(data), rank_info(0, 3))


def test_one_process_can_take_the_steps_of_two(data: Path, one: Run, tmp_path: Path) -> None:
    done = trainer(*words(data, tmp_path, 8, "--ranks", 2), "--run", "r")
    assert done.code == 0, done.err
    assert_alike(one, Run(tmp_path / "r", done.err))


def test_a_run_begun_before_ranks_were_written_down_is_one_of_one_process(data: Path, tmp_path: Path) -> None:
    command = ("--shards", data, "--out", tmp_path, *SMALL, "--batch-size", 4, "--steps", 1, "--run", "r")
    assert trainer(*command).code == 0
    path = tmp_path / "r" / "config.yaml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "ranks" not in line))
    done = trainer("--out", tmp_path, "--run", "r", "--resume", "--ranks", 2)
    assert done.code == 2 and "was started with --ranks 1, not 2" in done.err
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert yaml.safe_load(path.read_text())["ranks"] == 1


def test_the_processes_of_a_machine_share_its_cpus_and_memory(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srshards.loader.patch_loader.available_cpus", lambda: 9)
    folder, config = open_shards(data), settings(data, workers=None)
    assert [checked_plan(config, folder, rank_info(0, ranks)).loader.workers for ranks in (1, 4, 16)] == [9, 2, 1]
    needed = checked_plan(settings(data, workers=1), folder).loader.memory_bytes
    monkeypatch.setattr("srshards.loader.memory.available_memory_bytes", lambda: 3 * needed)
    assert checked_plan(settings(data, workers=1), folder, rank_info(0, 2)).loader.memory_bytes == needed
    with pytest.raises(ArgumentError, match=r"1 workers with `prefetch` 16 need"):
        checked_plan(settings(data, workers=1), folder, rank_info(0, 4))
    images = 3 * (64**2 + 32**2) * len(folder.train)
    monkeypatch.setattr("srshards.loader.memory.available_memory_bytes", lambda: 2 * images)
    assert checked_plan(settings(data, resident=True), folder).loader.memory_bytes == images
    with pytest.raises(ArgumentError, match=r"`resident`: the images of 33 samples take"):
        checked_plan(settings(data, resident=True), folder, rank_info(0, 2))


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("auto", 1) == choose_device("cpu", 0) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", 1) == choose_device("cuda", 1) == torch.device("cuda:1")
    assert choose_device("cuda") == torch.device("cuda")
    with pytest.raises(
        UsageError, match=r"no CUDA device for local rank 2: this machine has 2 CUDA devices; .* 2 to torchrun$"
    ):
        choose_device("auto", 2)
    for name in ("cuda:0", "mps"):
        with pytest.raises(UsageError, match=f"--device {name}: with torchrun, each process has its own device"):
            choose_device(name, 0)


def test_figures_of_parts_add_up_to_those_of_all() -> None:
    inf = float("inf")
    images = [Quality(30.0, 31.5, 0.9, 0.91), Quality(inf, inf, 1.0, 1.0), Quality(20.25, 22.0, 0.5, 0.52)]
    for parts in ((images, []), (images[:1], images[1:]), (images[::2], images[1::2])):
        sums = [sum(column) for column in zip(*map(quality_sums, parts), strict=True)]
        assert mean_of_sums(sums) == mean_quality(images)
    assert mean_quality(images).psnr_y == (31.5 + 22.0) / 2
    assert mean_of_sums(quality_sums(images[1:2])).psnr_y == inf
