"""Saves are written by a thread while training goes on: what they contain, failures, interruptions, order of files."""

import os
import signal
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, TIMEOUT_S, Result, events, journal, trainer, weights

from srshards.errors import RunError
from srshards.storage.store import StoreError
from tests.drill.warm import run_warm
from trainer.runs.folder import RunFolder
from trainer.training import background, record
from trainer.training.background import BackgroundWriter
from trainer.training.learner import Learner
from trainer.training.snapshot import Snapshot

pytestmark = pytest.mark.slow


def train(shards: Path, out: Path, *args: object) -> Result:
    return trainer("--shards", shards / "scale_2x", "--out", out, *SMALL, "--run", "r", *args)


def after_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[int, Learner], object]) -> None:
    """Call `act` with the number of each step, counted from 1, at its end."""
    real = Learner.step

    def step(learner: Learner, index: int, batches: Iterator[Any]) -> torch.Tensor:
        loss = real(learner, index, batches)
        act(index + 1, learner)
        return loss

    monkeypatch.setattr(Learner, "step", step)


def saved(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "state.pt", weights_only=True)
    return state


@pytest.fixture
def late_saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Write a save only when the training waits for it. The list fills with the steps of the written states."""
    written: list[int] = []
    awaited = threading.Event()
    real_save, real_wait = record.save_state, background.wait_for

    def save(path: Path, data: str, progress: Any, tensors: dict[str, Any]) -> None:
        assert awaited.wait(TIMEOUT_S), "the training does not go on"
        awaited.clear()
        real_save(path, data, progress, tensors)
        written.append(progress.step)

    def wait(tasks: Any) -> Any:
        awaited.set()
        return real_wait(tasks)

    monkeypatch.setattr(record, "save_state", save)
    monkeypatch.setattr(background, "wait_for", wait)
    return written


# ---- content


def test_training_goes_on_while_a_save_is_written(
    late_saves: list[int], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The saves contain the state after their steps, although they are written later."""
    states: dict[int, dict[str, Any]] = {}
    written_before: dict[int, list[int]] = {}
    real = record.save_weights

    def note(step: int, learner: Learner) -> None:
        states[step] = Snapshot().take(learner.state())
        written_before[step] = list(late_saves)

    def compare(path: Path, params: Any, params_ema: Any) -> None:
        real(path, params, params_ema)
        if path.name == "model.pth":
            state = saved(path.parent)
            step = state["progress"]["step"]
            assert state["progress"]["losses"] == []
            for name in ("params", "params_ema", "optimizer"):
                torch.testing.assert_close(state[name], states[step][name], rtol=0, atol=0)
            assert all(torch.equal(params[name], states[step]["params"][name]) for name in params)
            assert torch.equal(torch.load(path)["params_ema"]["body.0.weight"], params_ema["body.0.weight"])

    after_step(monkeypatch, note)
    monkeypatch.setattr(record, "save_weights", compare)
    result = train(shards, tmp_path, "--steps", 6, "--save-every", 2, "--val-every", 6)
    assert result.code == 0, result.err
    assert late_saves == [2, 4, 6]
    assert written_before[4] == [] and written_before[6] == [2]


def test_a_snapshot_keeps_its_copy_of_nested_tensors() -> None:
    weight = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    state = {"params": {"weight": weight}, "groups": [{"lr": torch.tensor(0.5), "betas": (0.9, 0.99)}], "none": None}
    snapshot = Snapshot()
    copied = snapshot.take(state)
    before = weight.clone()
    weight.zero_()
    assert torch.equal(copied["params"]["weight"], before)
    assert copied["params"]["weight"].stride() == weight.stride()
    assert copied["groups"] == [{"lr": torch.tensor(0.5), "betas": (0.9, 0.99)}] and copied["none"] is None
    again = snapshot.take(state)
    assert again["params"]["weight"].data_ptr() == copied["params"]["weight"].data_ptr()
    assert torch.equal(again["params"]["weight"], weight)


def test_too_little_memory_for_a_snapshot_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty_like", fail)
    with pytest.raises(MemoryError):
        Snapshot().take({"weight": torch.zeros(1)})


def test_files_are_written_in_the_order_in_which_they_refer_to_each_other(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that says that a validation is done, and which weights were the best, comes after both."""
    names: list[str] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        real(source, target)
        names.append(Path(target).name)

    monkeypatch.setattr(os, "replace", replace)
    assert train(shards, tmp_path, "--steps", 1).code == 0
    assert names[-4:] == ["best.pth", "step-000001.png", "state.pt", "model.pth"]


# ---- failures


def block(path: Path) -> None:
    """Put a folder in the place of a file, which also stops root, who ignores permissions."""
    (path / "in the way").mkdir(parents=True)


def test_a_failed_save_ends_the_run_at_the_next_step(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BackgroundWriter.check

    def check(writer: BackgroundWriter) -> None:
        if writer._task is not None:
            background.wait_for([writer._task])
        real(writer)

    monkeypatch.setattr(BackgroundWriter, "check", check)
    after_step(monkeypatch, lambda step, _: block(tmp_path / "r" / "state.pt") if step == 1 else None)
    result = train(shards, tmp_path, "--steps", 9, "--val-every", 9, "--save-every", 2)
    message = f"cannot write {tmp_path / 'r' / 'state.pt'}: Is a directory"
    assert result.code == 1 and f"Error: {message}" in result.err and "Traceback" not in result.err
    assert [(line["step"], line["message"]) for line in events(tmp_path / "r", "error")] == [(3, message)]
    assert not (tmp_path / "r" / "model.pth").exists()


def test_a_stopped_run_that_cannot_be_saved_is_an_error(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(step: int, _: Learner) -> None:
        if step == 2:
            block(tmp_path / "r" / "state.pt")
            signal.raise_signal(signal.SIGTERM)

    after_step(monkeypatch, stop)
    result = train(shards, tmp_path, "--steps", 9, "--val-every", 2)
    assert result.code == 1, result
    assert f"Error: cannot write {tmp_path / 'r' / 'state.pt'}: Is a directory" in result.err
    assert "everything is saved" not in result.err
    assert len(events(tmp_path / "r", "error")) == 1


def test_the_error_of_a_run_and_that_of_its_last_save_are_both_reported(
    late_saves: list[int], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(step: int, _: Learner) -> None:
        if step == 3:
            block(tmp_path / "r" / "model.pth")
            raise RunError("the loss is not finite")

    after_step(monkeypatch, fail)
    result = train(shards, tmp_path, "--steps", 9, "--val-every", 2)
    assert result.code == 1 and result.err.endswith("Error: the loss is not finite\n")
    assert f"The last save failed, too: cannot write {tmp_path / 'r' / 'model.pth'}: Is a directory\n" in result.err
    assert late_saves == [2] and saved(tmp_path / "r")["progress"]["step"] == 2


def test_an_upload_that_failed_meanwhile_keeps_the_log_ordered(
    late_saves: list[int], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(run: RunFolder, patience_s: float = 0) -> None:
        if late_saves == [2]:
            raise StoreError("cannot write s3://bucket/runs/r/model.pth: timed out")

    monkeypatch.setattr(RunFolder, "publish", publish)
    result = train(shards, tmp_path, "--steps", 4, "--save-every", 2, "--val-every", 4)
    assert result.code == 0, result.err
    assert result.err.count("timed out. Training continues; the next save retries.") == 1
    lines = journal(tmp_path / "r")
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert [line["message"] for line in lines if line["event"] == "unsaved"] == [
        "cannot write s3://bucket/runs/r/model.pth: timed out"
    ]


# ---- interruptions


def test_a_second_interrupt_completes_the_save_that_is_being_written(
    late_saves: list[int], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt_twice(step: int, _: Learner) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    after_step(monkeypatch, interrupt_twice)
    result = train(shards, tmp_path, "--steps", 9, "--val-every", 2)
    assert result.code == 130 and result.err.rstrip().endswith("Interrupted."), result
    assert late_saves == [2] and saved(tmp_path / "r")["progress"]["step"] == 2
    assert not list(tmp_path.rglob("*.tmp"))


# The second save is written after step 11, and ends with SIGKILL before the file is renamed.
KILL_DURING_STEP_11 = """
    import os, signal, threading
    from trainer.training import record
    from trainer.training.learner import Learner

    step, save, has_gone_on = Learner.step, record.save_state, threading.Event()

    def my_step(learner, index, batches):
        if index + 1 == 11:
            has_gone_on.set()
            threading.Event().wait()
        return step(learner, index, batches)

    def my_save(path, data, progress, tensors):
        if progress.step == 8:
            has_gone_on.wait()
            os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        save(path, data, progress, tensors)

    Learner.step, record.save_state = my_step, my_save
"""


def test_a_run_killed_during_a_save_resumes_from_the_previous_one(shards: Path, tmp_path: Path) -> None:
    args = ("--shards", shards / "scale_2x", *SMALL, "--steps", 12, "--val-every", 4, "--run", "r")
    assert trainer(*args, "--out", tmp_path / "whole").code == 0
    run = tmp_path / "r"
    program = {"my": "namespace"}
    killed = run_warm(
        "trainer", *args, "--out", tmp_path, prepare=(exec, (textwrap.dedent(KILL_DURING_STEP_11), program))
    )
    assert killed.code == -signal.SIGKILL, killed
    assert saved(run)["progress"]["step"] == 4 and journal(run)[-1]["step"] == 10
    assert len(list(run.glob(".state.pt.*.tmp"))) == 1
    assert trainer("--out", tmp_path, "--run", "r", "--resume").code == 0
    assert journal(run) == journal(tmp_path / "whole" / "r")
    assert weights(run) == weights(tmp_path / "whole" / "r")
    assert not list(run.glob(".*.tmp"))
