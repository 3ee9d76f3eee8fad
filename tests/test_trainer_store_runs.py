"""Runs whose folder lies in an object store: the same files, put there with every save, and found there to go on."""

import io
import json
import math
import shutil
import tempfile
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from helpers import SMALL, Result, start_within, trainer

from srshards.errors import RunError
from srshards.storage import remote
from srshards.storage.store import parse_address, read_bytes, write_bytes
from tests.drill.fault_proxy import FaultKind
from tests.drill.s3_server import Bucket
from tests.drill.warm import Warm
from trainer.training.display import Display
from trainer.training.learner import Learner

STEPS = ("--steps", 6, "--val-every", 2, "--val-samples", 2)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs in a store are worked on: nothing may stay there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def train(shards: Path, out: object, *args: object) -> Result:
    return trainer("--shards", shards / "scale_2x", *SMALL, *STEPS, "--out", out, "--run", "r", *args)


def weights(content: bytes) -> dict[str, torch.Tensor]:
    loaded = torch.load(io.BytesIO(content), weights_only=True)["params"]
    assert isinstance(loaded, dict)
    return loaded


def assert_same_weights(one: bytes, other: bytes) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def left_in(scratch: Path) -> list[Path]:
    return [path for path in scratch.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_run_in_a_store_has_the_files_of_a_local_one(s3: Bucket, shards: Path, tmp_path: Path, scratch: Path) -> None:
    local = train(shards, tmp_path / "runs")
    remote = train(shards, f"{s3.address}/runs")
    assert (local.code, remote.code) == (0, 0), remote.err
    objects = s3.objects("runs/r")
    there = {path.relative_to(tmp_path / "runs/r").as_posix() for path in (tmp_path / "runs/r").rglob("*")}
    plain = {name for name in there if (tmp_path / "runs/r" / name).is_file() and "tensorboard" not in name}
    assert plain - {".lock"} == {name for name in objects if "tensorboard" not in name}
    assert any(name.startswith("tensorboard/") for name in objects)
    assert_same_weights(objects["model.pth"], (tmp_path / "runs/r/model.pth").read_bytes())
    assert f"{s3.address}/runs/r/model.pth  final weights" in remote.out
    assert left_in(scratch) == []


def test_a_killed_run_goes_on_from_what_is_in_the_store(
    s3: Bucket, shards: Path, tmp_path: Path, scratch: Path
) -> None:
    assert train(shards, tmp_path / "runs").code == 0
    words = ("--shards", shards / "scale_2x", *SMALL, *STEPS, "--out", f"{s3.address}/runs", "--run", "r")
    # What follows the first save is slow: there is time to kill it before the end.
    s3.proxy.break_next("stall", method="PUT", key="*/state.pt", skip=1, times=math.inf)
    process = Warm("trainer", *words)
    while s3.proxy.count("PUT", "*/state.pt") < 2:
        assert process.is_alive, process.wait()
        sleep(0.02)
    process.kill()
    del process  # and its output, which is in the scratch folder too
    s3.proxy.heal()
    assert left_in(scratch)
    resumed = trainer("--out", f"{s3.address}/runs", "--run", "r", "--resume")
    assert resumed.code == 0, resumed.err
    assert f"Run      {s3.address}/runs/r, resumed at step 2" in resumed.err
    assert_same_weights(s3.objects("runs/r")["model.pth"], (tmp_path / "runs/r/model.pth").read_bytes())
    assert left_in(scratch) == []


def test_names_are_looked_up_in_the_store(s3: Bucket, shards: Path) -> None:
    out = f"{s3.address}/runs"
    assert train(shards, out).code == 0
    again = train(shards, out)
    assert (again.code, again.err) == (
        2,
        f"Error: {out}/r already exists; continue it with --resume, or pass another --run\n",
    )
    unknown = trainer("--out", out, "--run", "other", "--resume")
    assert unknown.code == 2
    assert f"{out}/other/config.yaml not found; runs in {out}: r" in unknown.err
    unnamed = trainer("--shards", shards / "scale_2x", *SMALL, *STEPS, "--out", out)
    assert unnamed.code == 0, unnamed.err
    assert f"{out}/ultra_lite-2x/model.pth" in unnamed.out


@pytest.mark.parametrize("moment", ["trainer.training.run.make_learner", "trainer.runs.folder.RunFolder.write_config"])
def test_trainings_that_start_at_once_on_one_machine_get_a_name_each(
    moment: str, s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one of them looks before the first has written anything."""
    words = ("--shards", shards / "scale_2x", *SMALL, "--steps", 1, "--out", f"{s3.address}/runs")
    ended = start_within(monkeypatch, moment, 1, *words)
    ended.append(trainer(*words))
    assert [done.code for done in ended] == [0, 0], ended
    made = {line for done in ended for line in done.err.splitlines() if line.startswith("Run ")}
    assert made == {f"Run      {s3.address}/runs/{name}" for name in ("ultra_lite-2x", "ultra_lite-2x-2")}


def test_a_store_that_stumbles_costs_nothing(s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SR_STORE_TIMEOUT", "3")  # for the one that says nothing
    stumbles: dict[str, FaultKind] = {
        "model.pth": "500",
        "best.pth": "503",
        "state.pt": "reset_body",
        "journal.jsonl": "stall",
        "config.yaml": "reset",
        "previews/*": "answer_lost",
    }
    for name, kind in stumbles.items():
        s3.proxy.break_next(kind, method="PUT", key=f"*/runs/r/{name}")
    done = train(shards, f"{s3.address}/runs")
    assert done.code == 0, done.err
    assert sum(s3.proxy.faults.values()) == len(stumbles)
    assert "Training continues" not in done.err


def test_a_store_that_is_back_before_the_end_is_only_mentioned(
    s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.storage.retry.ATTEMPTS", 1)
    say = Display.say

    def healing_say(display: Display, line: str) -> None:
        say(display, line)
        if "Training continues" in line:
            s3.proxy.heal()

    monkeypatch.setattr(Display, "say", healing_say)
    s3.proxy.break_next("500", method="PUT", key="*/model.pth", times=math.inf)
    done = train(shards, f"{s3.address}/runs")
    assert done.code == 0, done.err
    assert f"cannot write {s3.address}/runs/r/model.pth" in done.err
    assert "Training continues; the next save retries." in done.err
    journal = s3.objects("runs/r")["journal.jsonl"].decode()
    assert '"event": "unsaved"' in journal and '"event": "error"' not in journal, "no error ended it"
    assert "state.pt" in s3.objects("runs/r")


def test_what_cannot_be_put_there_stays_here(s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srshards.storage.retry.ATTEMPTS", 2)
    s3.proxy.break_next("500", method="PUT", key="*/state.pt", times=math.inf)
    done = train(shards, f"{s3.address}/runs")
    assert done.code == 1
    assert f"Error: cannot write {s3.address}/runs/r/state.pt" in done.err
    kept = Path(done.err.rpartition("The files of the run were kept in ")[2].partition(": copy them")[0])
    names = {path.name for path in kept.iterdir()}
    assert {"model.pth", "best.pth", "state.pt", "config.yaml", "journal.jsonl"} <= names
    assert "state.pt" not in s3.objects("runs/r")


def test_a_bucket_that_is_not_there_is_named(s3: Bucket, shards: Path, scratch: Path) -> None:
    """Before the first step."""
    done = train(shards, "s3://no-such-bucket-here/runs")
    assert done.code == 1
    assert "Error: cannot write s3://no-such-bucket-here/runs/r/config.yaml: " in done.err
    assert done.err.count("cannot write") == 1 and "The files of" not in done.err
    assert left_in(scratch) == []


def test_what_a_run_fetched_is_not_sent_again(s3: Bucket, shards: Path) -> None:
    assert train(shards, f"{s3.address}/runs").code == 0
    puts = s3.proxy.count("PUT", "*/state.pt")
    done = trainer("--out", f"{s3.address}/runs", "--run", "r", "--resume")
    assert done.code == 0, done.err
    assert s3.proxy.count("PUT", "*/state.pt") == puts


@pytest.mark.parametrize("damage", ["other shards", "no state", "beyond the end"])
def test_a_state_that_cannot_be_gone_on_from_is_named_where_it_lies(
    damage: str, s3: Bucket, shards: Path, tmp_path: Path, scratch: Path
) -> None:
    """Not in the folder of this machine that it was fetched to, which is gone by then."""
    run = f"{s3.address}/runs/r"
    assert train(shards, f"{s3.address}/runs").code == 0
    words: tuple[object, ...] = ("--out", f"{s3.address}/runs", "--run", "r", "--resume")
    if damage == "other shards":
        other = tmp_path / "other"
        shutil.copytree(shards / "scale_2x", other)
        manifest = json.loads((other / "manifest.json").read_text())
        manifest["shards"][0]["sha256"] = "0" * 64
        (other / "manifest.json").write_text(json.dumps(manifest))
        config = parse_address(f"{run}/config.yaml")
        write_bytes(config, read_bytes(config).replace(str(shards / "scale_2x").encode(), str(other).encode()))
    elif damage == "no state":
        write_bytes(parse_address(f"{run}/state.pt"), b"something else")
    else:
        config = parse_address(f"{run}/config.yaml")
        write_bytes(config, read_bytes(config).replace(b"steps: 6", b"steps: 1"))
    done = trainer(*words)
    assert done.code == 2
    assert f"{run}/state.pt" in done.err.splitlines()[-1]
    assert str(scratch) not in done.err
    assert left_in(scratch) == []


def test_a_large_state_may_take_its_time_to_come(s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(shards, f"{s3.address}/runs").code == 0
    expected: dict[str, int] = {}
    real = remote.ask

    def noting(address: Any, verb: str, action: Any, size: int = 0, pages: bool = False) -> Any:
        if verb == "read":
            expected[address.name] = size
        return real(address, verb, action, size, pages)

    monkeypatch.setattr(remote, "ask", noting)
    done = trainer("--out", f"{s3.address}/runs", "--run", "r", "--resume")
    assert done.code == 0, done.err
    assert expected["state.pt"] == len(s3.objects("runs/r")["state.pt"])


def test_what_cannot_be_fetched_leaves_nothing_here(
    s3: Bucket, shards: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.storage.retry.ATTEMPTS", 1)
    assert train(shards, f"{s3.address}/runs").code == 0
    s3.proxy.break_next("500", method="GET", key="*/state.pt", times=math.inf)
    done = trainer("--out", f"{s3.address}/runs", "--run", "r", "--resume")
    assert done.code == 1 and f"Error: cannot read {s3.address}/runs/r/state.pt" in done.err
    assert not [path for path in scratch.iterdir() if path.name.startswith("sr-run-") and path.is_dir()]


def test_the_error_that_ended_a_run_is_said_also_when_the_store_is_gone(
    s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.storage.retry.ATTEMPTS", 1)
    real = Learner.step

    def broken(learner: Learner, index: int, batches: Any) -> torch.Tensor:
        if index == 4:
            s3.proxy.break_next("500", method="PUT", key="*", times=math.inf)
            raise RunError("the loss is not finite")
        return real(learner, index, batches)

    monkeypatch.setattr(Learner, "step", broken)
    done = train(shards, f"{s3.address}/runs")
    assert done.code == 1
    assert "\nError: the loss is not finite. The files of the run were kept in " in done.err
    assert Path(done.err.rpartition("run were kept in ")[2].partition(": copy them")[0], "state.pt").is_file()


def test_a_save_does_not_wait_for_ever(s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.training.record._PATIENCE_S", 0.0)
    done = train(shards, f"{s3.address}/runs")
    assert done.code == 0, "the end is patient"
    assert f"cannot write {s3.address}/runs/r: timed out after 0 minutes. Training continues;" in done.err
    assert "state.pt" in s3.objects("runs/r")


def test_a_run_that_fails_before_its_first_step_leaves_no_objects(
    s3: Bucket, shards: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> torch.Tensor:
        assert "config.yaml" in s3.objects("runs/r")
        raise RunError("no such step")

    monkeypatch.setattr(Learner, "step", fail)
    done = train(shards, f"{s3.address}/runs")
    assert done.code == 1 and "Error: no such step" in done.err
    assert s3.objects("runs/r") == {} and left_in(scratch) == []
