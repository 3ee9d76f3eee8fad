"""`python -m trainer --shards ...`: output, files of a run, and exact resumption."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from helpers import SMALL, Result, generate, journal, run_trainer, trainer, wait_until, weights
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from srshards import native
from tests.drill.warm import Warm
from trainer.models.weights import load_network
from trainer.runs.checkpoint import TrainingProgress, save_state

pytestmark = pytest.mark.slow

STEPS = 40
FinishedRun = tuple[Path, subprocess.CompletedProcess[str]]


def train(shards: Path, out: Path, *args: object) -> Result:
    """Train a run, which must succeed."""
    result = trainer("--shards", shards / "scale_2x", "--out", out, *SMALL, *args)
    assert result.code == 0, result.err + result.out
    return result


def arguments(shards: Path, out: Path) -> tuple[object, ...]:
    """Return the arguments of the run `finished`."""
    size = ("--steps", STEPS, "--val-every", 15, "--workers", 1)
    return ("--shards", shards / "scale_2x", "--out", out, *SMALL, *size)


@pytest.fixture(scope="module")
def finished(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The folder of an uninterrupted run of 40 steps, and its process."""
    out = tmp_path_factory.mktemp("runs")
    result = run_trainer(*arguments(shards, out))
    assert result.returncode == 0, result.stderr
    return out / "ultra_lite-2x", result


def test_a_run_writes_the_files_it_lists(finished: FinishedRun) -> None:
    run, result = finished
    assert {path.name for path in run.iterdir()} - {".lock"} == {
        *("config.yaml", "plan.json", "journal.jsonl", "tensorboard", "previews"),
        *("model.pth", "best.pth", "state.pt"),
    }
    for name in ("model.pth", "best.pth", "previews/", "journal.jsonl", "tensorboard/"):
        assert str(run / name) in result.stdout
    assert "PSNR-Y" in result.stdout and "bicubic" in result.stdout and "40 steps in" in result.stdout
    assert "peak memory" in result.stdout and "patches/s" in result.stdout


def test_stderr_shows_the_plan_and_the_progress(finished: FinishedRun) -> None:
    stderr = finished[1].stderr
    for part in (
        "39 train, 1 val samples, HR 64 px, 2x by cubic, npy",
        "ultra_lite, 45,156 parameters, LR in, 2x out",
        "cpu (",
        "1 data worker, ",
        "40, each 4 patches of 24 px: 4.1 epochs of 39 samples",
        "step 40/40, ",
        " steps/s, loss 0.",
        "patches/s, data wait ",
        "Step 15: PSNR-Y ",
        " vs. bicubic), SSIM-Y ",
        "best ",
    ):
        assert part in stderr, part
    assert not any(part in stderr for part in ("Traceback", "Warning", "leaked", "\r"))


def test_every_validation_is_logged_with_a_preview(finished: FinishedRun) -> None:
    run, _ = finished
    lines = journal(run)
    vals = [line for line in lines if line["event"] == "val"]
    assert [line["step"] for line in vals] == [15, 30, 40]
    assert all(
        {f"{who}{metric}" for who in ("", "bicubic_") for metric in ("psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y")}
        < line.keys()
        for line in vals
    )
    trained = [line for line in lines if line["event"] == "train"]
    assert [line["step"] for line in trained] == sorted({*range(2, 41, 2), 15})
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("val/psnr_y")] == [15, 30, 40]
    assert [event.value for event in board.Scalars("train/loss")] == pytest.approx([line["loss"] for line in trained])
    assert "bicubic_network_hr" in board.Tags()["images"]
    previews = sorted((run / "previews").iterdir())
    assert [path.name for path in previews] == ["step-000015.png", "step-000030.png", "step-000040.png"]
    with Image.open(previews[0]) as picture:
        assert picture.width > 3 * 64 and picture.height > 64


def test_warm_up_of_short_runs_is_slow_enough(finished: FinishedRun) -> None:
    """A warm-up of two steps, a twentieth of 40, can break a small network permanently."""
    rates = {line["step"]: line["lr"] for line in journal(finished[0]) if line["event"] == "train"}
    assert rates[10] == pytest.approx(4e-3 * 10 / 12)  # 30 % of the steps
    assert 4e-3 > rates[20] > rates[40]


def test_weight_files_contain_weights_only_and_the_state_everything(finished: FinishedRun) -> None:
    run, _ = finished
    for name in ("model.pth", "best.pth"):
        content = torch.load(run / name, weights_only=True)
        assert content.keys() == {"params", "params_ema"}
        assert all(type(value) is torch.Tensor for state in content.values() for value in state.values())
        assert load_network(run / name).spec.name == "ultra_lite"
    state = torch.load(run / "state.pt", weights_only=True)
    assert {"params", "params_ema", "optimizer", "scaler", "progress"} <= state.keys()
    assert state["progress"]["step"] == STEPS


def test_a_saved_configuration_reproduces_the_run(shards: Path, finished: FinishedRun, tmp_path: Path) -> None:
    run, _ = finished
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["batch-size"] == 4 and settings["steps"] == STEPS and settings["model"] == "ultra_lite"
    result = trainer("--config", run / "config.yaml", "--out", tmp_path, "--run", "again")
    assert result.code == 0, result.err
    assert weights(tmp_path / "again") == weights(run)


def test_a_killed_run_resumes_from_its_last_state(shards: Path, finished: FinishedRun, tmp_path: Path) -> None:
    run = tmp_path / "ultra_lite-2x"
    process = Warm("trainer", *arguments(shards, tmp_path))
    wait_until((run / "state.pt").exists)
    process.kill()
    assert 0 < torch.load(run / "state.pt", weights_only=True)["progress"]["step"] < STEPS
    with open(run / "journal.jsonl", "a") as file:
        file.write('{"event": "train", "st')  # an incomplete line
    (run / ".state.pt.123.tmp").write_bytes(b"half")
    result = trainer("--out", tmp_path, "--run", "ultra_lite-2x", "--resume")
    assert result.code == 0, result.err
    assert not list(run.glob(".*.tmp"))
    assert journal(run) == journal(finished[0])
    assert weights(run) == weights(finished[0])


def test_sigkill_during_a_save_keeps_the_previous_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    save_state(path, "data", TrainingProgress(step=1), {})
    monkeypatch.setattr(os, "fsync", lambda file: os.kill(os.getpid(), signal.SIGKILL))
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            save_state(path, "data", TrainingProgress(step=2), {})
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # the state and the incomplete next one
    assert torch.load(path, weights_only=True)["progress"]["step"] == 1


def test_gradient_accumulation_equals_a_larger_batch(shards: Path, tmp_path: Path) -> None:
    """Two half batches equal a full batch: the same samples, and the same weights up to rounding."""
    settings = ("--steps", 6, "--amp", "off", "--val-every", 6)
    train(shards, tmp_path, *settings, "--run", "whole")
    train(shards, tmp_path, *settings, "--run", "halves", "--batch-size", 2, "--grad-accum", 2)
    one, other = (load_network(tmp_path / run / "model.pth").state_dict() for run in ("whole", "halves"))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


@pytest.mark.parametrize("model", ["ultra_lite", "lite", "standard"])
@pytest.mark.parametrize("input_name", ["lr", "up"])
def test_networks_train_on_both_inputs(shards: Path, tmp_path: Path, model: str, input_name: str) -> None:
    size = ("--patch-size", 12, "--batch-size", 1, "--steps", 1)
    result = trainer(
        "--shards", shards / "scale_3x", "--out", tmp_path, *SMALL, *size, "--model", model, "--input", input_name
    )
    assert result.code == 0, result.err
    run = tmp_path / (f"{model}-3x" + ("-up" if input_name == "up" else ""))
    assert load_network(run / "best.pth").spec.scale == (3 if input_name == "lr" else 1)


def test_init_starts_from_weights(shards: Path, finished: FinishedRun, tmp_path: Path) -> None:
    run, _ = finished
    train(shards, tmp_path, "--steps", 1, "--lr", 1e-9, "--init", run / "best.pth")
    first, then = (load_network(p).state_dict() for p in (run / "best.pth", tmp_path / "ultra_lite-2x" / "model.pth"))
    assert all(torch.allclose(first[name], then[name], atol=1e-6) for name in first)


def test_png_shards_train_with_advice_to_use_npy(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, "--codec", "png")
    result = train(tmp_path, tmp_path / "runs", "--steps", 2)
    assert result.err.count("shards with --codec tlc or npy train faster") == 1


def test_a_short_run_of_the_default_length_is_noted(shards: Path, finished: FinishedRun, tmp_path: Path) -> None:
    note = (
        "Note     only {} steps: a network usually needs 1,000 or more to be clearly better than bicubic; pass --steps"
    )
    few = ("--batch-size", 39)  # all samples of an epoch
    with_default = train(shards, tmp_path, *few)
    assert with_default.err.count(note.format(15) + " 3000, or use more photos\n") == 1
    weights = finished[0] / "best.pth"
    for other in (("--steps", 1), ("--epochs", 1), ("--init", weights)):
        assert "clearly better than bicubic" not in train(shards, tmp_path, *few, *other).err


def test_a_network_below_bicubic_is_noted(shards: Path, tmp_path: Path) -> None:
    note = "Note: the network is below bicubic; a new run with more --steps usually helps."
    assert note in train(shards, tmp_path / "short", "--steps", 1).out
    assert note not in train(shards, tmp_path / "adversarial", "--steps", 1, "--gan", "vanilla:0.1").out


def test_a_missing_core_is_noted_where_it_would_help(
    photos: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = "Note     the compiled core of srshards is missing, so batches are read by slower code; with a C compiler, "
    assert note not in train(shards, tmp_path / "with", "--steps", 1).err
    monkeypatch.setattr(native, "_core", None)
    assert train(shards, tmp_path / "without", "--steps", 1).err.count(note) == 1
    assert note not in train(shards, tmp_path / "resident", "--steps", 1, "--resident").err
    generate(photos, tmp_path, "-s", 2, "--codec", "png")
    assert note not in train(tmp_path, tmp_path / "png", "--steps", 1).err


def test_shards_without_validation_samples_train(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, "--val-fraction", 0)
    result = train(tmp_path, tmp_path / "runs", "--steps", 2)
    assert "no validation samples" in result.err
    assert not (tmp_path / "runs" / "ultra_lite-2x" / "best.pth").exists()


def test_the_plan_states_dropped_samples(shards: Path, tmp_path: Path) -> None:
    result = train(shards, tmp_path, "--epochs", 1)
    assert (
        "9, each 4 patches of 24 px: 1 epoch of 39 samples, dropping the last 3 samples, too few for a step"
        in result.err
    )


def test_the_loss_decreases(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path, "--steps", 120, "--val-every", 120, "--lr", 2e-3)
    losses = [line["loss"] for line in journal(tmp_path / "ultra_lite-2x") if line["event"] == "train"]
    assert losses[-1] < 0.8 * losses[0]


def test_compile_prints_its_duration(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # really compiling takes a minute
    result = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 2, "--step", "compiled")
    assert result.code == 0 and result.err.count("Compiled in ") == 1


def test_other_options_work(shards: Path, tmp_path: Path) -> None:
    options = ("--loss", "charbonnier", "--ema", 0, "--clip", 0, "--warmup", 0, "--amp", "bf16", "--verify")
    train(shards, tmp_path, "--steps", 2, *options)
    content = torch.load(tmp_path / "ultra_lite-2x" / "model.pth", weights_only=True)
    assert content.keys() == {"params"} and not any(name.startswith("_orig_mod") for name in content["params"])
