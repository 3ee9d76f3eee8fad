"""Runs in an object store: the same files as a local run, uploads with every save, resumption from the store."""

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
from helpers import SMALL, Result, all_files, start_more_runs, trainer

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
    """The folder for working copies of runs in a store. They must be removed at the end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def train(shards: Path, out: object, *args: object) -> Result:
    return trainer("--shards", shards / "scale_2x", *SMALL, *STEPS, "--out", out, "--run", "r", *args)


@pytest.fixture(scope="module")
def finished_run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished local run. Tests must not modify it."""
    out = tmp_path_factory.mktemp("runs")
    assert train(shards, out).code == 0
    (out / "r" / ".lock").unlink()
    return out / "r"


@pytest.fixture
def out(s3: Bucket, finished_run: Path) -> str:
    """The address of a folder that contains `finished_run`."""
    s3.put_folder(finished_run, "runs/r")
    return f"{s3.address}/runs"


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


def test_a_run_in_a_store_has_the_files_of_a_local_run(
    s3: Bucket, shards: Path, finished_run: Path, scratch: Path
) -> None:
    remote = train(shards, f"{s3.address}/runs")
    assert remote.code == 0, remote.err
    objects = s3.objects("runs/r")
    local = {name for name in all_files(finished_run) if not name.startswith("tensorboard")}
    assert local == {name for name in objects if not name.startswith("tensorboard/")}
    assert any(name.startswith("tensorboard/") for name in objects)
    assert_same_weights(objects["model.pth"], (finished_run / "model.pth").read_bytes())
    assert f"{s3.address}/runs/r/model.pth  final weights" in remote.out
    assert left_in(scratch) == []


def test_a_killed_run_resumes_from_the_store(s3: Bucket, shards: Path, finished_run: Path, scratch: Path) -> None:
    args = ("--shards", shards / "scale_2x", *SMALL, *STEPS, "--out", f"{s3.address}/runs", "--run", "r")
    # Saves after the first one stall, so that the run can be killed before its end.
    s3.proxy.break_next("stall", method="PUT", key="*/state.pt", skip=1, times=math.inf)
    process = Warm("trainer", *args)
    while s3.proxy.count("PUT", "*/state.pt") < 2:
        assert process.is_alive, process.wait()
        sleep(0.02)
    process.kill()
    del process  # deletes its output, which is in the scratch folder too
    s3.proxy.heal()
    assert left_in(scratch)
    resumed = trainer("--out", f"{s3.address}/runs", "--run", "r", "--resume")
    assert resumed.code == 0, resumed.err
    assert f"Run      {s3.address}/runs/r, resumed at step 2" in resumed.err
    assert_same_weights(s3.objects("runs/r")["model.pth"], (finished_run / "model.pth").read_bytes())
    assert left_in(scratch) == []


def test_run_names_are_looked_up_in_the_store(out: str, shards: Path) -> None:
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
def test_concurrent_runs_on_one_machine_get_distinct_names(
    moment: str, s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run looks for a name before the first has written anything."""
    args = ("--shards", shards / "scale_2x", *SMALL, "--steps", 1, "--out", f"{s3.address}/runs")
    results = start_more_runs(monkeypatch, moment, 1, *args)
    results.append(trainer(*args))
    assert [result.code for result in results] == [0, 0], results
    lines = {line for result in results for line in result.err.splitlines() if line.startswith("Run ")}
    assert lines == {f"Run      {s3.address}/runs/{name}" for name in ("ultra_lite-2x", "ultra_lite-2x-2")}


def test_transient_faults_are_retried(s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SR_STORE_TIMEOUT", "3")  # for the request that stalls
    faults: dict[str, FaultKind] = {
        "model.pth": "500",
        "best.pth": "503",
        "state.pt": "reset_body",
        "journal.jsonl": "stall",
        "config.yaml": "reset",
        "previews/*": "answer_lost",
    }
    for name, kind in faults.items():
        s3.proxy.break_next(kind, method="PUT", key=f"*/runs/r/{name}")
    result = train(shards, f"{s3.address}/runs")
    assert result.code == 0, result.err
    assert sum(s3.proxy.faults.values()) == len(faults)
    assert "Training continues" not in result.err


def test_a_failed_upload_is_a_warning_if_a_later_one_succeeds(
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
    result = train(shards, f"{s3.address}/runs")
    assert result.code == 0, result.err
    assert f"cannot write {s3.address}/runs/r/model.pth" in result.err
    assert "Training continues; the next save retries." in result.err
    journal = s3.objects("runs/r")["journal.jsonl"].decode()
    assert '"event": "unsaved"' in journal and '"event": "error"' not in journal, "no error in the log"
    assert "state.pt" in s3.objects("runs/r")


def test_files_that_cannot_be_uploaded_are_kept(s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srshards.storage.retry.ATTEMPTS", 2)
    s3.proxy.break_next("500", method="PUT", key="*/state.pt", times=math.inf)
    result = train(shards, f"{s3.address}/runs")
    assert result.code == 1
    assert f"Error: cannot write {s3.address}/runs/r/state.pt" in result.err
    kept = Path(result.err.rpartition("The files of the run were kept in ")[2].partition(": copy them")[0])
    names = {path.name for path in kept.iterdir()}
    assert {"model.pth", "best.pth", "state.pt", "config.yaml", "journal.jsonl"} <= names
    assert "state.pt" not in s3.objects("runs/r")


def test_a_missing_bucket_is_reported(s3: Bucket, shards: Path, scratch: Path) -> None:
    """The error is reported before the first step."""
    result = train(shards, "s3://no-such-bucket-here/runs")
    assert result.code == 1
    assert "Error: cannot write s3://no-such-bucket-here/runs/r/config.yaml: " in result.err
    assert result.err.count("cannot write") == 1 and "The files of" not in result.err
    assert left_in(scratch) == []


def test_resuming_a_finished_run_uploads_no_state(s3: Bucket, out: str) -> None:
    result = trainer("--out", out, "--run", "r", "--resume")
    assert result.code == 0, result.err
    assert s3.proxy.count("PUT", "*/state.pt") == 0


@pytest.mark.parametrize("damage", ["other shards", "no state", "beyond the end"])
def test_an_unusable_state_is_reported_by_its_address(
    damage: str, out: str, shards: Path, tmp_path: Path, scratch: Path
) -> None:
    """The message has the address in the store, not the working copy, which is removed."""
    run = f"{out}/r"
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
    result = trainer("--out", out, "--run", "r", "--resume")
    assert result.code == 2
    assert f"{run}/state.pt" in result.err.splitlines()[-1]
    assert str(scratch) not in result.err
    assert left_in(scratch) == []


def test_the_timeout_depends_on_the_size_of_the_state(s3: Bucket, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected: dict[str, int] = {}
    real = remote.request

    def record(address: Any, verb: str, action: Any, size: int = 0, pages: bool = False) -> Any:
        if verb == "read":
            expected[address.name] = size
        return real(address, verb, action, size, pages)

    monkeypatch.setattr(remote, "request", record)
    result = trainer("--out", f"{s3.address}/runs", "--run", "r", "--resume")
    assert result.code == 0, result.err
    assert expected["state.pt"] == len(s3.objects("runs/r")["state.pt"])


def test_a_failed_download_leaves_no_local_files(
    s3: Bucket, out: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srshards.storage.retry.ATTEMPTS", 1)
    s3.proxy.break_next("500", method="GET", key="*/state.pt", times=math.inf)
    result = trainer("--out", f"{s3.address}/runs", "--run", "r", "--resume")
    assert result.code == 1 and f"Error: cannot read {s3.address}/runs/r/state.pt" in result.err
    assert not [path for path in scratch.iterdir() if path.name.startswith("sr-run-") and path.is_dir()]


def test_the_error_of_a_run_is_reported_if_the_store_fails(
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
    result = train(shards, f"{s3.address}/runs")
    assert result.code == 1
    assert "\nError: the loss is not finite. The files of the run were kept in " in result.err
    assert Path(result.err.rpartition("run were kept in ")[2].partition(": copy them")[0], "state.pt").is_file()


def test_uploads_during_training_have_a_deadline(s3: Bucket, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.training.record._PATIENCE_S", 0.0)
    result = train(shards, f"{s3.address}/runs")
    assert result.code == 0, "the final save has no deadline"
    assert f"cannot write {s3.address}/runs/r: timed out after 0 minutes. Training continues;" in result.err
    assert "state.pt" in s3.objects("runs/r")


def test_a_run_that_fails_before_its_first_step_leaves_no_objects(
    s3: Bucket, shards: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> torch.Tensor:
        assert "config.yaml" in s3.objects("runs/r")
        raise RunError("no such step")

    monkeypatch.setattr(Learner, "step", fail)
    result = train(shards, f"{s3.address}/runs")
    assert result.code == 1 and "Error: no such step" in result.err
    assert s3.objects("runs/r") == {} and left_in(scratch) == []
