"""The command line of the trainer: output, and a clear message with exit code 2 for every mistake."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import (
    SMALL,
    Result,
    all_files,
    generate,
    make_photo,
    overwrite,
    run_trainer,
    start_more_runs,
    trainer,
    trainer_command,
)
from PIL import Image
from test_library import NOT_SHARDS

from srshards.shards.tar_index import load_index
from trainer.evaluation import compare, evaluate
from trainer.models.weights import read_weights, save_weights
from trainer.training import device

ODD = "夜 景\n2"  # a name with Chinese characters, a space and a newline
ONE_STEP = (*SMALL, "--steps", 1)


def refused(*args: object) -> str:
    """Return stderr of a command that must fail with exit code 2 and a single error."""
    result = trainer(*args)
    assert result.code == 2, result
    assert result.out == "" and "Traceback" not in result.err
    assert sum(line.startswith("Error: ") for line in result.err.splitlines()) == 1
    return result.err


def train(shards: Path, out: Path, *args: object) -> Result:
    return trainer("--shards", shards, "--out", out, *ONE_STEP, *args)


def train_refused(shards: Path, out: Path, *args: object) -> str:
    return refused(*(() if "--shards" in args else ("--shards", shards)), "--out", out, *ONE_STEP, *args)


def resuming(run: Path) -> tuple[object, ...]:
    return ("--out", run.parent, "--run", run.name, "--resume")


def resume(run: Path, *args: object) -> Result:
    """Resume a run, which must succeed."""
    result = trainer(*resuming(run), *args)
    assert result.code == 0, result.err
    return result


def best(run: Path) -> tuple[object, ...]:
    return ("--weights", run / "best.pth")


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two steps: `lr` and `up` at 2x. Tests must not modify them."""
    out = tmp_path_factory.mktemp("runs")
    for name in ("lr", "up"):
        result = train(shards / "scale_2x", out, "--steps", 2, "--input", name, "--run", name)
        assert result.code == 0, result.err
    return out


@pytest.fixture
def shards_copy(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards at 2x that tests may damage."""
    return Path(shutil.copytree(shards / "scale_2x", tmp_path / "copy"))


# ---- --shards


def test_shards_are_required() -> None:
    assert (
        "pass the shards to train on, e.g. --shards shards/scale_4x (to generate them, run `python -m shardgen "
        in refused()
    )


def test_a_folder_instead_of_a_command_gets_advice(shards: Path) -> None:
    folder = shards / "scale_2x"
    assert f"unknown command {folder}; to train on it, pass --shards {folder}" in refused(folder)
    assert f"to train on it, pass --shards {folder}" in refused(folder, "--model", "lite")


def test_the_command_train_gets_advice(shards: Path) -> None:
    assert "--shards" in refused("train", "--shards", shards / "scale_2x")


def test_training_options_before_another_command_are_refused(shards: Path, runs: Path) -> None:
    stderr = refused("--shards", shards / "scale_2x", "evaluate", *best(runs / "lr"))
    assert "--shards" in stderr and "after" in stderr


@pytest.mark.parametrize("make", NOT_SHARDS)
def test_other_folders_are_refused(make: Callable[[Path], tuple[Path, str]], tmp_path: Path) -> None:
    folder, message = make(tmp_path)
    assert f"--shards {folder}: {message}" in train_refused(folder, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def loose_images_of_the_former_scripts(folder: Path) -> str:
    shutil.rmtree(folder)
    (folder / "景").mkdir(parents=True)
    for name in ("0_lr_4x.png", "1.PNG", "2.PNG"):
        Image.new("RGB", (20, 20)).save(folder / "景" / name)
    return (
        "this folder has 3 loose images but no shards; to make shards of the pairs, run `python -m shardgen pack --hr "
        f"PHOTOS --lr {folder} -o shards`"
    )


def newer(folder: Path) -> str:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 3', '"format_version": 4'))
    return f"{path} has format version 4, newer than 3; update sr-shards"


def broken_json(folder: Path) -> str:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-20])
    return f"{path} is not valid JSON"


def impossible_scale(folder: Path) -> str:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"scale": 2', '"scale": 0'))
    return f"{path}: invalid scale 0"


def no_tar(folder: Path) -> str:
    (folder / "train-000001.tar").unlink()
    return (
        f"{folder / 'train-000001.tar'} is listed in the manifest but missing; run `python -m shardgen verify {folder}"
    )


def no_index(folder: Path) -> str:
    (folder / "val-000000.idx").unlink()
    return f"{folder / 'val-000000.idx'} is listed in the manifest but missing; run `python -m shardgen verify {folder}"


def short_tar(folder: Path) -> str:
    path = folder / "train-000001.tar"
    size = path.stat().st_size
    os.truncate(path, size - 512)
    return f"{path}: expected {size:,} bytes as in the manifest, found {size - 512:,}; run `python -m shardgen verify "


@pytest.mark.parametrize(
    "spoil",
    [loose_images_of_the_former_scripts, newer, broken_json, impossible_scale, no_tar, no_index, short_tar],
)
def test_damaged_shards_are_refused(spoil: Callable[[Path], str], shards_copy: Path, tmp_path: Path) -> None:
    message = spoil(shards_copy)
    assert message in train_refused(shards_copy, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_several_scales_lists_them(shards: Path) -> None:
    scales = f"--shards {shards / 'scale_2x'} or {shards / 'scale_3x'}"
    assert f"expected the folder of one scale; pass {scales}" in refused("--shards", shards)


def test_verify_reports_altered_bytes(shards_copy: Path, tmp_path: Path) -> None:
    path = shards_copy / "train-000002.tar"
    member = load_index(path.with_suffix(".idx"))[0][0]
    overwrite(path, member.offset + member.size // 2, b"other")  # among pixels, which have no separate checksum
    assert train(shards_copy, tmp_path).code == 0
    stderr = train_refused(shards_copy, tmp_path, "--verify")
    assert f"{path}: SHA-256 differs from manifest.json" in stderr and "--fix" in stderr


def test_images_too_small_for_ssim_are_refused(photos: Path, tmp_path: Path) -> None:
    """SSIM needs 11 px inside a border of `scale` px: 16 px are too few at 4x."""
    generate(photos, tmp_path, "-s", 4, "--size", 16)
    stderr = train_refused(tmp_path / "scale_4x", tmp_path / "runs", "--patch-size", 16)
    assert "16 px" in stderr and "--size" in stderr


def test_unusual_folder_names_work(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards / "scale_2x", tmp_path / ODD))
    result = train(folder, tmp_path / "跑", "--run", ODD)
    assert result.code == 0 and str(tmp_path / "跑" / ODD / "best.pth") in result.out
    assert trainer("--out", tmp_path / "跑", "--run", ODD, "--resume").code == 0
    assert yaml.safe_load((tmp_path / "跑" / ODD / "config.yaml").read_text())["run"] == ODD


# ---- options

VALUES = [
    ("--patch-size", 25, "--patch-size 25 is not divisible by the scale 2; try 24 or 26"),
    ("--patch-size", 1, "--patch-size 1 is not divisible by the scale 2; try 2"),
    ("--patch-size", 66, "--patch-size 66: the stored HR images have 64 px; pass at most that, or generate shards"),
    *(
        (option, value, f"{option} {value}: expected {low} or more")
        for option, low in {
            "--patch-size": 1,
            "--batch-size": 1,
            "--steps": 1,
            "--epochs": 1,
            "--grad-accum": 1,
            "--prefetch": 1,
            "--patches-per-sample": 1,
            "--val-every": 1,
            "--val-samples": 1,
            "--warmup": 0,
            "--workers": 0,
            "--seed": 0,
        }.items()
        for value in {low - 1, -7}
    ),
    *(("--lr", value, "expected a rate above 0 and below 1, e.g. 2e-4") for value in (0, -0.1, 1, "nan", "inf")),
    *(("--ema", value, "expected 0 (off) or a decay below 1, e.g. 0.999") for value in (1, -0.1, "nan")),
    *(("--clip", value, "expected 0 (off) or a positive norm") for value in (-1, "nan")),
    ("--batch-size", "four", "Invalid value for '--batch-size': 'four' is not a valid integer."),
    ("--model", "liite", "unknown model 'liite'; did you mean 'lite'?"),
    ("--loss", "mse", "unknown loss 'mse'; expected one of l1, charbonnier"),
    ("--amp", "fp16", "--amp fp16 requires a CUDA device; on a CPU, pass --amp bf16, auto or off"),
    ("--device", "gpu", "--device gpu: expected auto, cpu, cuda or cuda:N"),
    ("--device", "", "expected auto, cpu, cuda or cuda:N"),
    ("--device", "meta", "--device meta: expected auto, cpu, cuda or cuda:N"),
    ("--device", "mkldnn", "--device mkldnn: expected auto, cpu, cuda or cuda:N"),
    ("--device", "cuda:99", "CUDA device"),
    ("--seed", 2**64, f"--seed {2**64}"),
    ("--prefetch", 65, "--prefetch 65: expected at most 64"),
    ("--run", "x" * 300, "name too long"),
    ("--shards", "x" * 300, "File name too long"),
    ("--batsh-size", 4, "Did you mean"),
]


@pytest.mark.parametrize(("option", "value", "message"), VALUES, ids=lambda value: str(value)[:24])
def test_invalid_values_are_refused(option: str, value: object, message: str, shards: Path, tmp_path: Path) -> None:
    assert message in train_refused(shards / "scale_2x", tmp_path / "runs", option, value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "../escaped", "not UTF-8 \udcff"])
def test_run_names_that_are_paths_are_refused(name: str, shards: Path, tmp_path: Path) -> None:
    """A path would put the run outside --out."""
    assert "--run" in train_refused(shards / "scale_2x", tmp_path / "a" / "runs", "--run", name)
    assert not all_files(tmp_path)


@pytest.mark.parametrize("command", ["train", "evaluate", "upscale"])
def test_cuda_without_a_device_is_refused(
    command: str, shards: Path, runs: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    weights = best(runs / "lr")
    args: tuple[object, ...] = {
        "train": ("--shards", shards / "scale_2x", "--out", tmp_path, *ONE_STEP),
        "evaluate": ("evaluate", *weights, "--hr", photos),
        "upscale": ("upscale", *weights, photos, "-o", tmp_path),
    }[command]
    stderr = refused(*args, "--device", "cuda")
    assert "--device cuda: this machine has no CUDA device" in stderr and "pass --device cpu or auto" in stderr


def test_progress_lines_have_no_empty_fields(shards: Path, tmp_path: Path) -> None:
    assert ", ," not in train(shards / "scale_2x", tmp_path).err


# ---- --config


def configured(tmp_path: Path, shards: Path, text: str | dict[str, Any], *args: object) -> list[object]:
    """Return the arguments to train with a configuration file: the given text, or small settings updated by a dict."""
    path = tmp_path / "设 置.yaml"
    small = {"shards": str(shards / "scale_2x"), "model": "ultra_lite", "patch-size": 24, "batch-size": 4}
    local = {"workers": 0, "device": "cpu", "steps": 1, "out": str(tmp_path / "runs")}
    if isinstance(text, dict):
        given = {name.replace("_", "-") for name in text}
        text = yaml.safe_dump({name: value for name, value in {**small, **local}.items() if name not in given} | text)
    path.write_text(text)
    return ["--config", path, *args]


def settings_of(run: Path) -> dict[str, Any]:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert isinstance(settings, dict)
    return settings


@pytest.mark.parametrize("spelling", ["batch-size", "batch_size"])
def test_settings_accept_dashes_or_underscores(spelling: str, shards: Path, tmp_path: Path) -> None:
    args = configured(tmp_path, shards, {spelling: 3, "run": "file", "lr": "2e-3", "amp": "off"})
    assert trainer(*args).code == 0
    assert trainer(*args, "--batch-size", 2, "--run", "line").code == 0
    assert [settings_of(tmp_path / "runs" / name)["batch-size"] for name in ("file", "line")] == [3, 2]
    assert settings_of(tmp_path / "runs" / "line")["lr"] == 0.002


def test_epochs_and_steps_together_are_refused(shards: Path, tmp_path: Path) -> None:
    stderr = train_refused(shards / "scale_2x", tmp_path / "runs", "--epochs", 2)
    assert stderr == "Error: --epochs and --steps both set the length of the run; pass one of them\n"
    assert not (tmp_path / "runs").exists()


def test_epochs_on_the_command_line_override_steps_of_a_configuration(shards: Path, tmp_path: Path) -> None:
    args = configured(tmp_path, shards, {"epochs": 3, "run": "both"})
    assert trainer(*args).code == 0 and settings_of(tmp_path / "runs" / "both")["steps"] == 1
    assert trainer(*args, "--run", "typed", "--epochs", 1).code == 0
    found = settings_of(tmp_path / "runs" / "typed")
    assert (found["epochs"], found["steps"]) == (1, None)


def test_amp_off_is_read_as_a_string(shards: Path, tmp_path: Path) -> None:
    """YAML 1.1 reads `off` as a boolean."""
    args = configured(tmp_path, shards, {"run": "off"})
    path = tmp_path / "设 置.yaml"
    path.write_text(path.read_text() + "amp: off\n")
    result = trainer(*args)
    assert result.code == 0, result.err
    assert settings_of(tmp_path / "runs" / "off")["amp"] == "off"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch-sise": 4}, "unknown setting 'batch-sise'; did you mean 'batch-size'?"),
        ({"bogus": 4}, "unknown setting 'bogus'; expected one of shards, "),
        ({"resume": True}, "unknown setting 'resume'"),
        ({"batch-size": [1]}, "batch-size: "),
        ({"batch-size": {"a": 1}}, "batch-size: "),
        ({"batch-size": "four"}, "batch-size: 'four' is not a valid integer"),
        ({"batch-size": True}, "batch-size: "),
        ({"batch-size": 2.5}, "batch-size: "),
        ({"batch-size": None}, "batch-size"),
        ({"steps": float("inf")}, "steps: "),
        ({"seed": None}, "seed"),
        ({"loss": None}, "loss"),
        ({"device": None}, "device"),
        ({"out": None}, "out"),
        ({"model": 3}, "model: unknown model '3'; for all names, run `python -m trainer models`"),
        ({"verify": 1}, "verify: "),
        ({"verify": "yes"}, "verify: "),
        ({"shards": 5}, "5"),
        ({"run": "a\0b"}, "run"),
        (
            "val-samples: 3\nval_samples: 4",
            "'val-samples' and 'val_samples' are the same setting; remove one of them",
        ),
        ("val-samples: 3\nval-samples: 3", "is not valid YAML: duplicate key 'val-samples' (line 1, column 1)"),
        ("steps: 0x10", "steps: '0x10' is not a valid integer"),
        ("steps: 1:30", "steps: '1:30' is not a valid integer"),
        ("steps: .inf", "steps: '.inf' is not a valid integer"),
        ("batch-size:", "batch-size: expected a value, found ''"),
        ("batch-size: [1]", "batch-size: expected one value, found a list"),
        ("verify: 1", "verify: expected true or false, found '1'"),
        ("shards: 2024-01-01", "shards"),
        ("- shards\n- model", "expected lines such as `batch-size: 16`, found YAML of type list"),
        ("shards", "expected lines such as `batch-size: 16`, found YAML of type str"),
        ("shards: [", "is not valid YAML"),
        ("", "pass the shards to train on"),
    ],
    ids=str,
)
def test_invalid_configurations_are_refused(
    settings: str | dict[str, Any], message: str, shards: Path, tmp_path: Path
) -> None:
    stderr = refused(*configured(tmp_path, shards, settings))
    assert message in stderr and ("设 置.yaml" in stderr or "shards" in message or "5" in message)
    assert not (tmp_path / "runs").exists()


def test_numeric_names_are_accepted_in_a_configuration(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = trainer(*configured(tmp_path, shards, {"out": 2024, "run": 5}))
    assert result.code == 0, result.err
    assert (tmp_path / "2024" / "5" / "model.pth").exists()


def test_configuration_values_are_parsed_like_options(shards: Path, tmp_path: Path) -> None:
    """YAML 1.1 would read 010 as 8, 1_0 as 10, 1:30 as 90, `yes` as true and 2024-01-01 as a date."""
    args = configured(tmp_path, shards, {})
    path = tmp_path / "设 置.yaml"
    begin = "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("steps"))
    for run in ("010", "1:30", "yes", "2024-01-01", ".inf"):
        path.write_text(f"{begin}run: {run}\nsteps: 010\nseed: 1_0\nclip: inf\n")
        found = settings_of(tmp_path / "runs" / run) if trainer(*args, "--steps", "01").code == 0 else {}
        assert {name: found.get(name) for name in ("run", "steps", "seed", "clip")} == {
            **{"run": run, "steps": 1, "seed": 10},
            "clip": float("inf"),
        }
    path.write_text(f"{begin}run: 1:30\nsteps: 010\n")
    stderr = refused(*args, "--resume")
    assert "was started with --steps 1, not --steps 10" in stderr, "config.yaml is read back, including infinity"


def test_unreadable_configurations_are_reported(tmp_path: Path) -> None:
    assert f"cannot read {tmp_path / 'none.yaml'}: No such file" in refused("--config", tmp_path / "none.yaml")
    assert f"cannot read {tmp_path}: Is a directory" in refused("--config", tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "bytes.yaml is not valid YAML" in refused("--config", tmp_path / "bytes.yaml")


# ---- --resume


@pytest.fixture
def run_copy(runs: Path, tmp_path: Path) -> Path:
    """A copy of the run `lr` in another folder than its configuration states."""
    return Path(shutil.copytree(runs / "lr", tmp_path / "out" / "lr"))


def edit_state(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    state = torch.load(run / "state.pt", weights_only=True)
    change(state)
    torch.save(state, run / "state.pt")


def drop_validation(run: Path) -> None:
    """Make the run look stopped between its last step and the validation."""
    edit_state(run, lambda state: state["progress"].update(validated=False))


def test_optimizer_moments_resume_from_any_memory_layout(runs: Path, tmp_path: Path) -> None:
    """The fused optimiser reads moments by address: another layout would give wrong values."""

    def plain(state: dict[str, Any]) -> None:
        state["progress"] |= {"step": 1, "validated": False}

    def contiguous(state: dict[str, Any]) -> None:
        plain(state)
        for moments in state["optimizer"]["state"].values():
            moments |= {name: value.contiguous() for name, value in moments.items()}

    def expanded(state: dict[str, Any]) -> None:
        plain(state)
        moments = state["optimizer"]["state"][0]
        moments["exp_avg"] = torch.zeros(1).expand(moments["exp_avg"].shape)

    weights = {}
    for change in (plain, contiguous, expanded):
        run = Path(shutil.copytree(runs / "lr", tmp_path / change.__name__ / "lr"))
        edit_state(run, change)
        resume(run)
        weights[change] = (run / "model.pth").read_bytes()
    assert weights[contiguous] == weights[plain]


def test_resuming_without_a_state_is_refused(run_copy: Path) -> None:
    (run_copy / "state.pt").unlink()
    before = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    stderr = refused(*resuming(run_copy))
    assert f"{run_copy} has weights, but no state.pt to resume from; start a new run, e.g. with --init" in stderr
    assert {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()} == before


def test_outdated_weights_of_a_finished_run_are_rewritten(run_copy: Path) -> None:
    """As after a kill between the two writes."""
    right = (run_copy / "model.pth").read_bytes()
    (run_copy / "model.pth").write_bytes(right[:-100])
    os.utime(run_copy / "model.pth", ns=(0, (run_copy / "state.pt").stat().st_mtime_ns - 1))
    resume(run_copy)
    assert (run_copy / "model.pth").read_bytes() == right


def test_resuming_a_finished_run_changes_nothing(run_copy: Path) -> None:
    files = [path for path in run_copy.rglob("*") if path.is_file() and path.name != ".lock"]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    result = resume(run_copy)
    message = f"{run_copy} has already finished, at step 2; nothing was trained. To train further, start a new run"
    assert message in result.out
    assert f"--init {run_copy / 'model.pth'}" in result.out
    assert "patches/s" not in result.out and "resumed" not in result.err
    assert {path for path in run_copy.rglob("*") if path.is_file() and path.name != ".lock"} == set(files)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before


def test_a_state_after_the_last_step_is_refused(run_copy: Path) -> None:
    edit_state(run_copy, lambda state: state["progress"].update(step=3))
    message = f"{run_copy / 'state.pt'} is from step 3, but the run ends after step 2; restore the value of `steps` in"
    assert message in refused(*resuming(run_copy))


@pytest.mark.parametrize("value", [2**31, 10**20, 10**400], ids=["2^31", "10^20", "10^400"])
@pytest.mark.parametrize(
    "option",
    ["epochs", "steps", "warmup", "grad-accum", "ranks", "patches-per-sample", "val-every", "save-every"],
)
def test_too_large_counts_are_refused(option: str, value: int, shards: Path, tmp_path: Path) -> None:
    stderr = train_refused(shards / "scale_2x", tmp_path / "runs", f"--{option}", value)
    assert f"--{option}: expected at most 2147483647" in stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["---\n", "null\n", "--- ~\n", "# nothing\n", ""])
def test_an_empty_configuration_is_accepted(text: str, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    result = train(shards / "scale_2x", tmp_path / "out", "--config", tmp_path / "c.yaml")
    assert result.code == 0, result.err


def test_resume_requires_an_existing_run(runs: Path, tmp_path: Path) -> None:
    assert f"--resume requires --run NAME; runs in {runs}: lr, up" in refused("--out", runs, "--resume")
    stderr = refused("--out", runs, "--run", "other", "--resume")
    assert f"{runs / 'other' / 'config.yaml'} not found; runs in {runs}: lr, up" in stderr
    assert f"there are no runs in {tmp_path}" in refused("--out", tmp_path, "--run", "lr", "--resume")


def test_an_existing_run_name_is_refused(shards: Path, runs: Path) -> None:
    stderr = train_refused(shards / "scale_2x", runs, "--run", "lr")
    assert f"{runs / 'lr'} already exists; continue it with --resume, or pass another --run" in stderr


def test_concurrent_runs_get_distinct_names(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path / "runs", *ONE_STEP)
    ended = start_more_runs(monkeypatch, "trainer.training.run.make_learner", 2, *args)
    ended.append(trainer(*args))
    for name, result in zip(("ultra_lite-2x", "ultra_lite-2x-2", "ultra_lite-2x-3"), ended, strict=True):
        assert result.code == 0, result.err
        assert f"Run      {tmp_path / 'runs' / name}\n" in result.err, "each starts at step 0"


def test_concurrent_runs_of_one_name_are_refused(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *ONE_STEP, "--run", "r")
    with monkeypatch.context() as patch:
        first = start_more_runs(patch, "trainer.training.run.make_learner", 1, *args)
        assert f"{tmp_path / 'r'} already exists; continue it with --resume, or pass" in refused(*args)
    assert first[0].code == 0, first
    shutil.rmtree(tmp_path / "r")
    second = start_more_runs(monkeypatch, "trainer.runs.folder.RunFolder.write_config", 1, *args)
    assert trainer(*args).code == 0
    assert second[0].code == 2 and f"another process is training in {tmp_path / 'r'}; wait until" in second[0].err


@pytest.mark.parametrize(
    ("option", "value", "before"),
    [
        ("--batch-size", 8, "with --batch-size 4"),
        ("--steps", 3, "with --steps 2"),
        ("--lr", 0.001, "with --lr 0.004"),
        ("--warmup", 0, "with --warmup 1"),
        ("--patches-per-sample", 2, "with --patches-per-sample 1"),
        ("--seed", 1, "with --seed 0"),
        ("--model", "lite", "with --model ultra_lite"),
        ("--init", "a.pth", "without --init"),
    ],
)
def test_resume_refuses_settings_that_change_the_training(
    option: str, value: object, before: str, run_copy: Path, tmp_path: Path
) -> None:
    message = f"{run_copy} was started {before}, not {option} {value}; omit {option}"
    assert message in refused(*resuming(run_copy), option, value)
    (tmp_path / "change.yaml").write_text(f"{option.removeprefix('--')}: {value}\n")
    assert message in refused(*resuming(run_copy), "--config", tmp_path / "change.yaml")


def test_resume_accepts_settings_that_do_not_change_the_training(shards: Path, run_copy: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(shards / "scale_2x", tmp_path / "moved"))
    drop_validation(run_copy)
    free = ("--shards", moved, "--prefetch", 1, "--device", "auto", "--verify", "--workers", 0, "--val-every", 1)
    result = resume(run_copy, *free)
    assert "resumed at step 2" in result.err and settings_of(run_copy)["shards"] == str(moved)
    (tmp_path / "all.yaml").write_text(f"run: lr\nout: {run_copy.parent}\nworkers: 0\n")
    assert trainer("--resume", "--config", tmp_path / "all.yaml").code == 0


def test_resume_accepts_explicit_values_of_defaults(shards: Path, run_copy: Path, tmp_path: Path) -> None:
    """For defaults derived from the network, the shards or other settings."""
    before = settings_of(run_copy)
    drop_validation(run_copy)
    same = ("--lr", 0.004, "--warmup", 1, "--patches-per-sample", 1, "--ranks", 1)
    assert "resumed at step 2" in resume(run_copy, *same).err
    lines = [f"{option[2:]}: {value}\n" for option, value in zip(same[::2], same[1::2], strict=True)]
    (tmp_path / "same.yaml").write_text("".join(map(str, lines)))
    resume(run_copy, "--config", tmp_path / "same.yaml")
    assert settings_of(run_copy) == before | {"out": str(run_copy.parent)}
    run = ("--out", tmp_path, "--run", "e")
    assert trainer("--shards", shards / "scale_2x", *run, *SMALL, "--epochs", 1).code == 0
    assert trainer(*run, "--resume", "--steps", 9).code == 0
    assert f"{tmp_path / 'e'} was started with --steps 9, not --steps 10" in refused(*run, "--resume", "--steps", 10)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "of an earlier version"])
def test_a_run_keeps_its_rates_if_defaults_change(
    recorded: bool, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions did not record them in plan.json."""
    facts = json.loads((run_copy / "plan.json").read_text())
    assert (facts["lr"], facts["warmup"]) == (0.004, 1)
    if not recorded:
        del facts["lr"], facts["warmup"]
        (run_copy / "plan.json").write_text(json.dumps(facts))
    monkeypatch.setattr("trainer.training.plan.default_warmup", lambda steps: 0)
    assert f"{run_copy} was started with --warmup 1, not --warmup 0" in refused(*resuming(run_copy), "--warmup", 0)
    edit_state(run_copy, lambda state: state["progress"].update(step=1, validated=False))
    resume(run_copy)
    lines = [json.loads(line) for line in (run_copy / "journal.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines if line["event"] == "train"] == [0.004, 0.004], "progress 0 of the cosine"
    facts = json.loads((run_copy / "plan.json").read_text())
    assert (facts["lr"], facts["warmup"]) == (0.004, 1), "also for a further resumption"


def test_a_finished_run_reports_missing_files(run_copy: Path, runs: Path) -> None:
    """The final weights are restored from the state; the best weights have no other copy."""
    for name in ("model.pth", "best.pth"):
        (run_copy / name).unlink()
    shutil.rmtree(run_copy / "previews")
    result = resume(run_copy)
    assert f"{run_copy / 'model.pth'}  final weights\n" in result.out
    assert (run_copy / "model.pth").read_bytes() == (runs / "lr" / "model.pth").read_bytes()
    assert f"{run_copy / 'best.pth'} is missing (best weights, " in result.out
    assert f"{run_copy / 'previews'}/ is missing (bicubic | network | HR)\n" in result.out


def test_a_moved_or_renamed_run_resumes_in_place(
    run_copy: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration still has the old folder, which may contain another run of that name."""
    before = {path: path.stat().st_mtime_ns for path in (runs / "lr").rglob("*")}
    drop_validation(run_copy)
    run_copy.parent.rename(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    result = trainer("--run", "lr", "--resume")
    assert result.code == 0, result.err
    assert "Run      runs/lr, resumed" in result.err
    assert {path: path.stat().st_mtime_ns for path in (runs / "lr").rglob("*")} == before
    (tmp_path / "runs" / "lr").rename(tmp_path / "runs" / "夜")
    assert trainer("--run", "夜", "--resume").code == 0


def test_resuming_drops_incomplete_log_lines(run_copy: Path) -> None:
    """File names in logged messages may contain other line separators of Unicode."""
    noted = {"event": "damaged", "step": 1, "reason": "a\u2028b\u2029c\u0085d\x0be"}
    line = json.dumps(noted, ensure_ascii=False)
    before = (run_copy / "journal.jsonl").read_text(encoding="utf-8") + line
    drop_validation(run_copy)
    state = shutil.copy(run_copy / "state.pt", run_copy.parent)
    for end in ("\n", "", '\n{"event": "train", "st', '\n{"event": "val", "step": 3}\n', "\n" + "[" * 100_000 + "\n"):
        (run_copy / "journal.jsonl").write_text(before + end, encoding="utf-8", newline="")
        shutil.copy(state, run_copy / "state.pt")
        resume(run_copy)
        log = (run_copy / "journal.jsonl").read_bytes().decode()
        assert log.startswith(f"{before}\n"), end[:40]
        new = log.removeprefix(f"{before}\n").splitlines()
        assert [json.loads(line)["event"] for line in new] == ["val", "account"], end[:40]


def test_resume_refuses_other_shards(shards: Path, photos: Path, run_copy: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path / "other", "-s", 2, "--seed", 1)
    for folder in (shards / "scale_3x", tmp_path / "other" / "scale_2x"):
        stderr = refused(*resuming(run_copy), "--shards", folder)
        assert f"{run_copy / 'state.pt'} was trained on other shards, so" in stderr
        assert f"--init {run_copy / 'model.pth'}" in stderr


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def weights_instead_of_state(path: Path) -> None:
    shutil.copy(path.with_name("model.pth"), path)


def version_only(path: Path) -> None:
    torch.save({"version": 1}, path)


def without_optimizer(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    del state["optimizer"]
    torch.save(state, path)


def state_of_another_network(path: Path) -> None:
    plan = path.with_name("plan.json")
    plan.write_text(plan.read_text().replace('"features": 24', '"features": 16'))


@pytest.mark.parametrize(
    "spoil",
    [truncated, empty_file, weights_instead_of_state, version_only, without_optimizer, state_of_another_network],
)
def test_an_unusable_state_is_reported(spoil: Callable[[Path], None], run_copy: Path) -> None:
    spoil(run_copy / "state.pt")
    stderr = refused(*resuming(run_copy))
    assert str(run_copy / "state.pt") in stderr and f"--init {run_copy / 'model.pth'}" in stderr


def test_a_folder_with_a_state_cannot_start_a_new_run(shards: Path, run_copy: Path) -> None:
    (run_copy / "config.yaml").unlink()
    stderr = train_refused(shards / "scale_2x", run_copy.parent, "--model", "lite", "--run", "lr")
    assert f"{run_copy} already exists" in stderr


def test_another_model_in_the_configuration_of_a_run_is_reported(run_copy: Path) -> None:
    config = run_copy / "config.yaml"
    config.write_text(config.read_text().replace("model: ultra_lite", "model: lite"))
    expected = f"{config} has the model lite, but the run was started with ultra_lite; restore `model: ultra_lite`"
    assert expected in refused(*resuming(run_copy))


def test_an_invalid_configuration_of_a_run_is_reported(run_copy: Path) -> None:
    (run_copy / "config.yaml").write_text("shards: [")
    assert f"{run_copy / 'config.yaml'} is not valid YAML" in refused(*resuming(run_copy))


# ---- weights


@pytest.mark.parametrize(
    ("folder", "args", "found", "expected"),
    [
        ("scale_3x", (), "ultra_lite at 2x", "ultra_lite at 3x"),
        ("scale_2x", ("--model", "lite"), "ultra_lite at 2x", "lite at 2x"),
        ("scale_2x", ("--input", "up"), "ultra_lite at 2x", "ultra_lite at 1x"),
    ],
)
def test_init_weights_of_another_network_are_refused(
    folder: str, args: tuple[object, ...], found: str, expected: str, shards: Path, runs: Path, tmp_path: Path
) -> None:
    weights = runs / "lr" / "best.pth"
    stderr = train_refused(shards / folder, tmp_path, *args, "--init", weights)
    assert f"weights {weights} are for {found}, but this run trains {expected}; pass other weights" in stderr
    assert not list(tmp_path.iterdir()), "an empty folder would change the name of the next run"


def test_weights_for_another_scale_are_refused(shards: Path, runs: Path, photos: Path, tmp_path: Path) -> None:
    weights = runs / "lr" / "best.pth"
    three = shards / "scale_3x"
    assert f"{weights} upscales 2x, but {three} is 3x" in refused("evaluate", "--weights", weights, "--shards", three)
    stderr = refused("evaluate", "--weights", weights, "--hr", photos, "--scale", 3)
    assert f"{weights} upscales 2x, not 3x" in stderr
    stderr = refused("upscale", "--weights", weights, photos, "-o", tmp_path, "--scale", 4)
    assert "this network upscales 2x, not 4x; omit --scale, or pass other --weights" in stderr


@pytest.mark.parametrize("command", ["train", "evaluate", "upscale", "export"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.pth", "no such file: "),
        ("lr", "is a folder; pass a file in it: best.pth, model.pth"),
        ("lr/state.pt", "is a training state, used to resume a run, not weights"),
        ("lr/config.yaml", "is not a weights file: expected a file saved by PyTorch, found a file that starts with"),
    ],
)
def test_every_command_refuses_files_that_are_not_weights(
    command: str, name: str, message: str, shards: Path, runs: Path, photos: Path, tmp_path: Path
) -> None:
    path = runs / name
    stderr = refused(
        *{
            "train": ("--shards", shards / "scale_2x", "--out", tmp_path, *ONE_STEP, "--init", path),
            "evaluate": ("evaluate", "--weights", path, "--hr", photos),
            "upscale": ("upscale", "--weights", path, photos, "-o", tmp_path),
            "export": ("export", "--weights", path, "-o", tmp_path / "model.onnx"),
        }[command]
    )
    assert str(path) in stderr and message in stderr
    assert not list(tmp_path.iterdir())


# ---- evaluate


@pytest.fixture(scope="module")
def hr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in colour, grey, with alpha and without texture, with unusual names."""
    folder = tmp_path_factory.mktemp("清晰 照片")
    colour = Image.fromarray(make_photo(40, 51, 1))
    colour.save(folder / f"{ODD}.png")
    colour.convert("L").save(folder / "grey.png")
    colour.convert("RGBA").save(folder / "alpha.png")
    Image.new("RGB", (40, 40), (128, 128, 128)).save(folder / "flat.png")
    return folder


def test_evaluate_requires_either_shards_or_hr(shards: Path, runs: Path, hr: Path) -> None:
    evaluate = ("evaluate", *best(runs / "lr"))
    message = "no images to evaluate; pass --shards shards/scale_4x, --hr FOLDER_OF_PHOTOS or --val NAME=FOLDER"
    assert message in refused(*evaluate)
    both = ("--shards", shards / "scale_2x", "--hr", hr)
    assert "pass either --shards or --hr, not both" in refused(*evaluate, *both)


def test_json_and_table_of_evaluate_agree(runs: Path, hr: Path) -> None:
    args = ("evaluate", *best(runs / "lr"), "--hr", hr)
    found = json.loads(trainer(*args, "--json").out)
    assert [image["image"] for image in found["images"]] == ["alpha.png", "flat.png", "grey.png", f"{ODD}.png"]
    assert found["scale"] == 2 and found["data"] == str(hr)
    flat = found["images"][1]["bicubic"]
    assert flat["psnr_rgb"] is None and flat["psnr_y"] is None and flat["ssim_y"] == 1
    table = trainer(*args).out
    for who in ("bicubic", "network"):
        row = []
        for name in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"):
            values = [image[who][name] for image in found["images"] if image[who][name] is not None]
            assert found["mean"][who][name] == pytest.approx(statistics.fmean(values))
            row.append(f"{found['mean'][who][name]:.2f} dB" if "psnr" in name else f"{found['mean'][who][name]:.4f}")
        line = next(line for line in table.splitlines() if line.startswith(who))
        assert line.split() == " ".join([who, *row]).split()


def test_the_mean_of_equal_images_is_infinite(runs: Path, hr: Path, tmp_path: Path) -> None:
    shutil.copy(hr / "flat.png", tmp_path)
    args = ("evaluate", *best(runs / "lr"), "--hr", tmp_path)
    assert json.loads(trainer(*args, "--json").out)["mean"]["bicubic"]["psnr_y"] is None
    assert "inf dB" in trainer(*args).out


@pytest.mark.parametrize("run", ["lr", "up"])
def test_evaluate_matches_the_validation_of_training(run: str, shards: Path, runs: Path) -> None:
    args = ("evaluate", "--weights", runs / run / "model.pth", "--shards", shards / "scale_2x", "--json")
    found = json.loads(trainer(*args).out)["mean"]
    lines = [json.loads(line) for line in (runs / run / "journal.jsonl").read_text().splitlines()]
    val = next(line for line in lines if line["event"] == "val")
    for name in ("psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb"):
        assert found["bicubic"][name] == pytest.approx(val[f"bicubic_{name}"], abs=1e-9)
        assert found["network"][name] == pytest.approx(val[name], abs=1e-3)  # rounding differs with the batch size


def test_evaluate_can_use_the_training_split(shards: Path, runs: Path) -> None:
    args = ("evaluate", *best(runs / "lr"), "--shards", shards / "scale_2x")
    assert "(train), 39 images at 2x" in trainer(*args, "--split", "train").out
    assert "omit --scale" in refused(*args, "--scale", 3)


def test_evaluate_requires_a_scale_for_1x_networks(runs: Path, hr: Path) -> None:
    args = ("evaluate", *best(runs / "up"), "--hr", hr)
    assert "pass the scale, e.g. --scale 4" in refused(*args)
    assert "4 images at 2x" in trainer(*args, "--scale", 2).out


def test_evaluate_reports_unsuitable_photos(runs: Path, tmp_path: Path) -> None:
    args = ("evaluate", *best(runs / "lr"), "--hr", tmp_path)
    assert f"no photos in {tmp_path}: expected" in refused(*args)
    small = tmp_path / "小.png"
    Image.new("RGB", (14, 40)).save(small)
    assert f"(SSIM-Y needs 11 px inside a border of 2 px): {small} (14 x 40 px); remove it" in refused(*args)
    Image.fromarray(make_photo(60, 60, 1)).save(small)
    assert trainer(*args).code == 0
    small.write_bytes(small.read_bytes()[:2000])
    assert f"cannot read {small}: truncated PNG" in refused(*args)
    assert "no such file or folder: " in refused(*args[:-1], tmp_path / "none")


def test_evaluate_accepts_a_single_photo(runs: Path, hr: Path) -> None:
    args = ("evaluate", *best(runs / "lr"), "--hr", hr / "grey.png", "--json")
    assert [image["image"] for image in json.loads(trainer(*args).out)["images"]] == ["grey.png"]


def test_evaluate_refuses_shards_without_validation_samples(photos: Path, runs: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, "--val-fraction", 0)
    args = ("evaluate", *best(runs / "lr"), "--shards", tmp_path / "scale_2x")
    assert f"no images in {tmp_path / 'scale_2x'} (val); pass --split train, or other --shards" in refused(*args)


@pytest.mark.parametrize("extension", ["json", "hr.npy"])
def test_a_damaged_validation_sample_is_reported(extension: str, shards_copy: Path, runs: Path, tmp_path: Path) -> None:
    member = next(m for m in load_index(shards_copy / "val-000000.idx")[0] if m.extension == extension)
    overwrite(shards_copy / "val-000000.tar", member.offset, bytes(40))
    args = ("evaluate", *best(runs / "lr"), "--shards", shards_copy)
    for result in (trainer(*args), train(shards_copy, tmp_path / "runs")):
        assert result.code == 1
        assert "val-000000" in result.err and f"`python -m shardgen verify {shards_copy} --fix`" in result.err


def test_evaluate_moves_the_network_and_the_images_to_the_device(
    runs: Path, hr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise tiles are chosen for the GPU while the CPU computes."""
    seen = []

    def no_pixels(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        seen.extend(tensor.device.type for tensor in tensors)
        return [torch.zeros(tensor.shape) for tensor in tensors]

    monkeypatch.setattr(device, "choose_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(evaluate, "choose_tile", lambda *args: None)
    monkeypatch.setattr(compare, "download", no_pixels)
    assert trainer("evaluate", *best(runs / "lr"), "--hr", hr).code == 0
    assert set(seen) == {"meta"}


# ---- upscale, export


def test_upscale_writes_results_and_comparisons(
    runs: Path, hr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("trainer.commands.upscale.keep_freed_memory", lambda: calls.append("keep_freed_memory"))
    result = trainer("upscale", *best(runs / "lr"), hr, "-o", tmp_path / "结 果", "--compare", "--scale", 2)
    assert result.code == 0, result.err
    assert {path.name for path in (tmp_path / "结 果").iterdir()} == {
        f"{stem}_2x{kind}.png" for stem in (ODD, "grey", "alpha", "flat") for kind in ("", "_compare")
    }
    assert "51 x 40 to 102 x 80 px" in result.out and result.err == ""
    assert calls == ["keep_freed_memory"], "large tensors of a CPU are mapped anew by each layer"
    with Image.open(tmp_path / "结 果" / "alpha_2x.png") as image:
        assert image.size == (102, 80)


def test_upscale_requires_a_scale_for_1x_networks(runs: Path, hr: Path, tmp_path: Path) -> None:
    args = ("upscale", *best(runs / "up"), hr / "grey.png", "-o", tmp_path / "out.png")
    assert "takes upsampled photos of any scale; pass the scale, e.g. --scale 4" in refused(*args)
    assert trainer(*args, "--scale", 2).code == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (102, 80) and np.asarray(image).ndim == 2


def test_upscale_refuses_invalid_arguments(runs: Path, hr: Path, tmp_path: Path) -> None:
    args = ("upscale", *best(runs / "lr"))
    assert "Missing argument 'PHOTOS...'" in refused(*args, "-o", tmp_path)
    assert "Missing option '-o'" in refused(*args, hr)
    assert "no such file or folder: " in refused(*args, tmp_path / "none.png", "-o", tmp_path)
    assert f"no photos in {tmp_path}: expected" in refused(*args, tmp_path, "-o", tmp_path)
    assert "pass a folder" in refused(*args, hr, "-o", tmp_path / "one.png")
    assert "JPEG does not support transparency" in refused(*args, hr / "alpha.png", "-o", tmp_path / "one.jpg")
    said = refused(*args, hr, "-o", tmp_path, "--tile", 4)
    assert (
        "Error: --tile 4: expected 28 px or more, because this network needs a margin of 10 px" in said
        and said.count("--tile 4") == 1
    )
    assert "expected auto, a number of px such as 512" in refused(*args, hr, "-o", tmp_path, "--tile", "big")


@pytest.mark.parametrize("command", ["upscale", "export"])
def test_an_output_below_a_file_is_refused(command: str, runs: Path, hr: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    weights = best(runs / "lr")
    photos = (hr / "grey.png",) if command == "upscale" else ()
    result = trainer(command, *weights, *photos, "-o", tmp_path / "file" / "below.png")
    assert result.code in (1, 2)
    assert f"cannot write {tmp_path / 'file' / 'below.png'}" in result.err and "Traceback" not in result.err


@pytest.mark.parametrize("command", ["evaluate", "upscale", "export"])
def test_weights_with_nan_are_refused(command: str, runs: Path, hr: Path, tmp_path: Path) -> None:
    state = read_weights(runs / "lr" / "best.pth")
    state["body.4.weight"] = state["body.4.weight"] * float("nan")
    save_weights(tmp_path / "nan.pth", state, None)
    photos = {"evaluate": ("--hr", hr), "upscale": (hr, "-o", tmp_path), "export": ("-o", tmp_path / "m.onnx")}[command]
    stderr = refused(command, "--weights", tmp_path / "nan.pth", *photos)
    reason = f"1 of {len(state)} parameters have values that are not finite (body.4.weight): the training diverged"
    assert f"{tmp_path / 'nan.pth'}: {reason}; use weights from an earlier step\n" in stderr
    assert all_files(tmp_path) == {"nan.pth"}


def test_weights_that_overflow_are_not_exported(runs: Path, tmp_path: Path) -> None:
    state = read_weights(runs / "lr" / "best.pth")
    huge = {name: tensor * 1e20 if name.startswith("body.4.") else tensor * 1e10 for name, tensor in state.items()}
    save_weights(tmp_path / "huge.pth", huge, None)
    stderr = refused("export", "--weights", tmp_path / "huge.pth", "-o", tmp_path / "m.onnx")
    largest = f"up to {huge['body.4.weight'].abs().max():.0e}, in body.4.weight"
    reason = f"the network's output is not finite, because its weights are too large ({largest}): the training diverged"
    assert f"{tmp_path / 'huge.pth'}: {reason}; use weights from an earlier step\n" in stderr
    assert all_files(tmp_path) == {"huge.pth"}


# ---- inaccessible paths


LONG_NAME = "x" * 300


@pytest.mark.parametrize(
    "args",
    [
        ("--shards", "SHARDS", "--out", LONG_NAME, *ONE_STEP),
        ("--shards", "SHARDS", "--out", "OUT", *ONE_STEP, "--init", LONG_NAME),
        ("--out", LONG_NAME, "--run", "r", "--resume"),
        ("--config", LONG_NAME),
        ("evaluate", "--weights", LONG_NAME, "--hr", "PHOTOS"),
        ("evaluate", "--weights", "WEIGHTS", "--hr", LONG_NAME),
        ("evaluate", "--weights", "WEIGHTS", "--shards", LONG_NAME),
        ("upscale", "--weights", "WEIGHTS", LONG_NAME, "-o", "OUT"),
        ("upscale", "--weights", "WEIGHTS", "PHOTOS", "-o", LONG_NAME),
    ],
    ids=lambda args: "-".join(word for word in map(str, args) if word.startswith("--") or word.islower())[:60],
)
def test_too_long_file_names_are_reported(
    args: tuple[object, ...], shards: Path, runs: Path, hr: Path, tmp_path: Path
) -> None:
    paths = {"SHARDS": shards / "scale_2x", "OUT": tmp_path, "PHOTOS": hr, "WEIGHTS": runs / "lr" / "best.pth"}
    result = trainer(*(paths.get(str(word), word) for word in args))
    assert result.code in (1, 2)
    assert "Error: " in result.err and "File name too long" in result.err


RUN_UNPRIVILEGED = """
    import os, sys
    command = sys.argv[1:]
    if os.geteuid() == 0:  # root without the capabilities to ignore permissions
        dropped = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", *command]
    os.execvp(command[0], command)
"""


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.slow
def test_missing_permissions_are_reported(command: str, shards: Path, runs: Path, hr: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555 if command == "train" else 0)
    args: tuple[object, ...] = {
        "train": ("--shards", shards / "scale_2x", "--out", folder, *ONE_STEP),
        "evaluate": ("evaluate", "--weights", folder / "best.pth", "--hr", hr),
    }[command]
    program = [sys.executable, "-c", textwrap.dedent(RUN_UNPRIVILEGED), *trainer_command(*args)]
    result = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert result.returncode in (1, 2)
    assert "Error: " in result.stderr and str(folder) in result.stderr and "Permission denied" in result.stderr
    assert "Traceback" not in result.stderr


# ---- help


def test_help_lists_the_commands() -> None:
    result = run_trainer("--help")
    assert result.returncode == 0 and result.stderr == ""
    for part in ("--shards", "evaluate", "upscale", "export", "  python -m trainer --shards shards/scale_4x"):
        assert part in result.stdout


@pytest.mark.parametrize("command", ["", "evaluate", "upscale", "export"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_option_has_help_and_a_default(command: str, flag: str) -> None:
    result = trainer(*([command] if command else []), flag)
    assert result.code == 0
    assert f"  python -m trainer {command}" in result.out
    without_default = {
        *("--resume", "--verify", "--resident", "--config", "--init", "--steps", "--shards", "--hr"),
        *("--json", "--cache", "--cache-decoded", "--compare", "--help", "--version", "--weights", "--output"),
        *("--scale", "--val", "--metrics", "--compare-page", "--preset"),
    }
    options = result.out.split("Options:")[1].split("Commands:")[0]
    for text in (" ".join(part.split()) for part in options.replace("\n  -", "\0-").split("\0")[1:]):
        name = next(word for word in text.replace(",", " ").split() if word.startswith("--"))
        required = "required" in text
        assert len(text.split()) > 3, text
        assert name in without_default or required or "default:" in text, text
