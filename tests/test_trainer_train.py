"""`python -m trainer --shards ...`: what it says, what it makes, and that it goes on exactly where it was."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from helpers import PATIENCE_S, SMALL, Result, generate, journal, run_trainer, trainer, until, weights
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.drill.warm import Warm
from trainer.models.weights import load_network
from trainer.runs.checkpoint import TrainingProgress, save_state

STEPS = 40


def train(shards: Path, out: Path, *args: object) -> Result:
    done = trainer("--shards", shards / "scale_2x", "--out", out, *SMALL, *args)
    assert done.code == 0, done.err + done.out
    return done


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """An undisturbed run of 40 steps, and what it said."""
    out = tmp_path_factory.mktemp("runs")
    words = ("--shards", shards / "scale_2x", "--out", out, *SMALL)
    done = run_trainer(*words, "--steps", STEPS, "--val-every", 15, "--workers", 1)
    assert done.returncode == 0, done.stderr
    return out / "ultra_lite-2x", done


def test_a_run_makes_what_it_says(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run, done = whole
    made = {path.name for path in run.iterdir()} - {".lock"}
    assert made == {
        "config.yaml",
        "plan.json",
        "journal.jsonl",
        "tensorboard",
        "previews",
        "model.pth",
        "best.pth",
        "state.pt",
    }
    for name in ("model.pth", "best.pth", "previews/", "journal.jsonl", "tensorboard/"):
        assert str(run / name) in done.stdout
    assert "PSNR-Y" in done.stdout and "bicubic" in done.stdout and "40 steps in" in done.stdout
    assert "peak memory" in done.stdout and "patches/s" in done.stdout


def test_it_says_what_it_is_about_to_do_and_how_far_it_is(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    said = whole[1].stderr
    for part in (
        "39 train, 1 val samples, HR 64 px, 2x by cubic, npy",
        "ultra_lite, 45,156 parameters, LR in, 2x out",
        "cpu (",
        "1 data workers",
        "40 of 4 patches of 24 px: 4.1 epoch of 39 samples",
        "step 40/40, ",
        " it/s, loss 0.",
        "patches/s, data wait ",
        "0 s left",
        "Step 15: PSNR-Y ",
        " vs. bicubic), SSIM-Y ",
        "best ",
    ):
        assert part in said, part
    assert not any(part in said for part in ("Traceback", "Warning", "leaked", "\r"))


def test_the_journal_tensorboard_and_previews_hold_every_validation(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, _ = whole
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
    assert [e.step for e in board.Scalars("val/psnr_y")] == [15, 30, 40]
    assert [e.value for e in board.Scalars("train/loss")] == pytest.approx([line["loss"] for line in trained])
    assert "bicubic_network_hr" in board.Tags()["images"]
    previews = sorted((run / "previews").iterdir())
    assert [path.name for path in previews] == ["step-000015.png", "step-000030.png", "step-000040.png"]
    with Image.open(previews[0]) as picture:
        assert picture.width > 3 * 64 and picture.height > 64


def test_the_rate_rises_slowly_however_short_the_run(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Two steps up to the peak, a twentieth of these 40, can break a small network for good."""
    rates = {line["step"]: line["lr"] for line in journal(whole[0]) if line["event"] == "train"}
    assert rates[10] == pytest.approx(4e-3 / 2)
    assert rates[20] == pytest.approx(4e-3)
    assert rates[20] > rates[40]


def test_the_weights_are_weights_alone_and_the_state_has_everything(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, _ = whole
    for name in ("model.pth", "best.pth"):
        content = torch.load(run / name, weights_only=True)
        assert content.keys() == {"params", "params_ema"}
        assert all(type(value) is torch.Tensor for state in content.values() for value in state.values())
        assert load_network(run / name).spec.name == "ultra_lite"
    state = torch.load(run / "state.pt", weights_only=True)
    assert {"params", "params_ema", "optimizer", "scaler", "progress"} <= state.keys()
    assert state["progress"]["step"] == STEPS


def test_the_configuration_can_be_given_back(
    shards: Path, whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    run, _ = whole
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["batch-size"] == 4 and settings["steps"] == STEPS and settings["model"] == "ultra_lite"
    done = trainer("--config", run / "config.yaml", "--out", tmp_path, "--run", "again")
    assert done.code == 0, done.err
    assert weights(tmp_path / "again") == weights(run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly(
    shards: Path, whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, number: signal.Signals
) -> None:
    process = begun(shards, tmp_path)
    path = tmp_path / "ultra_lite-2x" / "journal.jsonl"
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    os.kill(process.pid, number)
    code, _, said = process.wait(PATIENCE_S)
    assert code == 128 + number, said
    assert all(
        part in said
        for part in ("everything is saved. Resume with: python -m trainer --out", "--run ultra_lite-2x --resume")
    )
    assert "Traceback" not in said
    stopped = torch.load(tmp_path / "ultra_lite-2x" / "state.pt", weights_only=True)["progress"]["step"]
    assert 0 < stopped < STEPS
    done = trainer("--out", tmp_path, "--run", "ultra_lite-2x", "--resume")
    assert done.code == 0, done.err
    assert f"resumed at step {stopped}" in done.err
    same_as(tmp_path / "ultra_lite-2x", whole[0])


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_state(
    shards: Path, whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    run = tmp_path / "ultra_lite-2x"
    process = begun(shards, tmp_path)
    until((run / "state.pt").exists)
    process.kill()
    assert 0 < torch.load(run / "state.pt", weights_only=True)["progress"]["step"] < STEPS
    with open(run / "journal.jsonl", "a") as file:
        file.write('{"event": "train", "st')  # as if it had been cut off
    (run / ".state.pt.123.tmp").write_bytes(b"half")
    done = trainer("--out", tmp_path, "--run", "ultra_lite-2x", "--resume")
    assert done.code == 0, done.err
    assert not list(run.glob(".*.tmp"))
    same_as(run, whole[0])


def begun(shards: Path, out: Path) -> Warm:
    """The run of `whole` once more."""
    words = ("--shards", shards / "scale_2x", "--out", out, *SMALL)
    return Warm("trainer", *words, "--steps", STEPS, "--val-every", 15, "--workers", 1)


def same_as(run: Path, other: Path) -> None:
    assert journal(run) == journal(other)
    assert weights(run) == weights(other)


def test_a_finished_run_has_nothing_to_go_on_with(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, _ = whole
    before = weights(run)
    done = trainer("--out", run.parent, "--run", run.name, "--resume")
    assert done.code == 0 and "40 steps" in done.out
    assert weights(run) == before


def test_sigkill_during_a_save_leaves_the_former_state_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    save_state(path, "data", TrainingProgress(step=1), {})
    monkeypatch.setattr(os, "fsync", lambda file: os.kill(os.getpid(), signal.SIGKILL))
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            save_state(path, "data", TrainingProgress(step=2), {})
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # the state, and the half-written next one
    assert torch.load(path, weights_only=True)["progress"]["step"] == 1


def test_gradients_add_up_over_batches(shards: Path, tmp_path: Path) -> None:
    """Half of the batch twice is the whole batch: the same samples, and the same weights but for rounding."""
    settings = ("--steps", 6, "--amp", "off", "--val-every", 6)
    train(shards, tmp_path, *settings, "--run", "whole")
    train(shards, tmp_path, *settings, "--run", "halves", "--batch-size", 2, "--grad-accum", 2)
    one, other = (load_network(tmp_path / run / "model.pth").state_dict() for run in ("whole", "halves"))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


@pytest.mark.parametrize(("model", "input_name"), [("ultra_lite", "up"), ("lite", "lr"), ("standard", "up")])
def test_every_network_trains_on_both_inputs(shards: Path, tmp_path: Path, model: str, input_name: str) -> None:
    size = ("--patch-size", 12, "--batch-size", 1, "--steps", 1)
    done = trainer(
        "--shards", shards / "scale_3x", "--out", tmp_path, *SMALL, *size, "--model", model, "--input", input_name
    )
    assert done.code == 0, done.err
    run = tmp_path / (f"{model}-3x" + ("-up" if input_name == "up" else ""))
    assert load_network(run / "best.pth").spec.scale == (3 if input_name == "lr" else 1)


def test_runs_get_names_that_are_free(shards: Path, tmp_path: Path) -> None:
    for _ in range(2):
        train(shards, tmp_path, "--steps", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ultra_lite-2x", "ultra_lite-2x-2"]


def test_weights_to_begin_with(
    shards: Path, whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    run, _ = whole
    train(shards, tmp_path, "--steps", 1, "--lr", 1e-9, "--init", run / "best.pth")
    first, then = (load_network(p).state_dict() for p in (run / "best.pth", tmp_path / "ultra_lite-2x" / "model.pth"))
    assert all(torch.allclose(first[name], then[name], atol=1e-6) for name in first)


def test_png_shards_train_and_it_is_said_that_npy_is_faster(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, "--codec", "png")
    done = train(tmp_path, tmp_path / "runs", "--steps", 2)
    assert done.err.count("shards with --codec npy train faster") == 1


def test_shards_without_validation_samples_train(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, "--val-fraction", 0)
    done = train(tmp_path, tmp_path / "runs", "--steps", 2)
    assert "no validation samples" in done.err
    assert not (tmp_path / "runs" / "ultra_lite-2x" / "best.pth").exists()


def test_epochs_say_what_is_left_out(shards: Path, tmp_path: Path) -> None:
    done = train(shards, tmp_path, "--epochs", 1)
    assert (
        "9, each 4 patches of 24 px: 1 epoch of 39 samples, dropping the last 3, which do not fill a step" in done.err
    )


def test_the_loss_goes_down(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path, "--steps", 120, "--val-every", 120, "--lr", 2e-3)
    losses = [line["loss"] for line in journal(tmp_path / "ultra_lite-2x") if line["event"] == "train"]
    assert losses[-1] < 0.8 * losses[0]


def test_how_long_compiling_took_is_said(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network: network)  # which takes a minute
    done = trainer("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 2, "--compile")
    assert done.code == 0 and done.err.count("Compiled in ") == 1


def test_compiled_weights_have_no_prefix_and_other_options_work(shards: Path, tmp_path: Path) -> None:
    options = ("--loss", "charbonnier", "--ema", 0, "--clip", 0, "--warmup", 0, "--amp", "bf16", "--verify")
    train(shards, tmp_path, "--steps", 2, *options)
    content = torch.load(tmp_path / "ultra_lite-2x" / "model.pth", weights_only=True)
    assert content.keys() == {"params"} and not any(name.startswith("_orig_mod") for name in content["params"])
