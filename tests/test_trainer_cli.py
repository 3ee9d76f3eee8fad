"""What a person types and what comes back: every wrong word is answered with its name, the way out and exit code 2."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Callable
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
    start_within,
    trainer,
    trainer_command,
)
from PIL import Image

from srshards.shards.tar_index import load_index
from trainer.inference import image_function
from trainer.models.weights import read_weights, save_weights
from trainer.training import device

ODD = "夜 景\n2"  # a name with Chinese, a space and a newline
ONE_STEP = (*SMALL, "--steps", 1)


def refused(*args: object) -> str:
    """What is said to a command that cannot be done. Nothing is on stdout, and nothing says Traceback."""
    done = trainer(*args)
    assert done.code == 2, done
    assert done.out == "" and "Traceback" not in done.err
    assert sum(line.startswith("Error: ") for line in done.err.splitlines()) == 1
    return done.err


def train(shards: Path, out: Path, *args: object) -> Result:
    return trainer("--shards", shards, "--out", out, *ONE_STEP, *args)


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two steps: `lr` and `up` at 2x. Not to be changed: copy what you change."""
    out = tmp_path_factory.mktemp("runs")
    for name in ("lr", "up"):
        done = train(shards / "scale_2x", out, "--steps", 2, "--input", name, "--run", name)
        assert done.code == 0, done.err
    return out


@pytest.fixture
def mine(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards at 2x, to be damaged."""
    return Path(shutil.copytree(shards / "scale_2x", tmp_path / "mine"))


# ---- --shards


def test_without_words_it_says_what_is_missing() -> None:
    assert (
        "pass the shards to train on, e.g. --shards shards/scale_4x (to generate them, run `python -m shardgen generate`)"
        in refused()
    )


def test_a_folder_where_a_command_is_expected_is_explained(shards: Path) -> None:
    folder = shards / "scale_2x"
    assert f"unknown command {folder}; to train on it, pass --shards {folder}" in refused(folder)
    assert f"to train on it, pass --shards {folder}" in refused(folder, "--model", "lite")


def test_the_word_train_is_explained(shards: Path) -> None:
    assert "--shards" in refused("train", "--shards", shards / "scale_2x")


def test_options_of_the_training_before_another_command_are_not_passed_over(shards: Path, runs: Path) -> None:
    said = refused("--shards", shards / "scale_2x", "evaluate", "--weights", runs / "lr" / "best.pth")
    assert "--shards" in said and "after" in said


def missing(folder: Path) -> str:
    shutil.rmtree(folder)
    return f"--shards {folder}: expected a folder of shards, but it does not exist; to generate shards, run: python -m"


def file(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    return f"--shards {folder}: expected a folder of shards, but it is a file; to generate shards, run: python -m"


def empty(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    return f"--shards {folder}: this folder has no manifest.json; to generate shards, run `python -m shardgen generate -i PHOTOS"


def loose_images(folder: Path) -> str:
    shutil.rmtree(folder)
    (folder / "景").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(make_photo(20, 20, number)).save(folder / "景" / f"{number}.PNG")
    return f"this folder has 3 loose images but no shards; to generate shards, run `python -m shardgen generate -i {folder} "


def images_of_the_old_scripts(folder: Path) -> str:
    loose_images(folder)
    (folder / "景" / "0.PNG").rename(folder / "景" / "0_lr_4x.png")
    return (
        "this folder has 3 loose images but no shards; to generate shards, run `python -m shardgen generate -i PHOTOS "
    )


def unfinished(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return f"--shards {folder}: this folder has tars but no manifest.json, generation did not finish; run the same"


def newer(folder: Path) -> str:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 3'))
    return f"{path} has format version 3, newer than 2: update sr-shards"


def broken_json(folder: Path) -> str:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-20])
    return f"{path} is not valid JSON"


def impossible_scale(folder: Path) -> str:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"scale": 2', '"scale": 0'))
    return f"{path}: scale 0"


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
    [
        missing,
        file,
        empty,
        loose_images,
        images_of_the_old_scripts,
        unfinished,
        newer,
        broken_json,
        impossible_scale,
        no_tar,
        no_index,
        short_tar,
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused(
    spoil: Callable[[Path], str], mine: Path, tmp_path: Path
) -> None:
    words = spoil(mine)
    assert words in refused("--shards", mine, "--out", tmp_path / "runs", *ONE_STEP)
    assert not (tmp_path / "runs").exists()


def test_the_folder_above_the_scales_lists_them(shards: Path) -> None:
    said = refused("--shards", shards)
    assert f"pass one of them: --shards {shards / 'scale_2x'} or {shards / 'scale_3x'}" in said


def test_altered_bytes_are_found_by_their_hash(mine: Path, tmp_path: Path) -> None:
    path = mine / "train-000002.tar"
    member = load_index(path.with_suffix(".idx"))[0][0]
    overwrite(path, member.offset + member.size // 2, b"other")  # among pixels, which have no checksum of their own
    assert train(mine, tmp_path).code == 0
    said = refused("--shards", mine, "--out", tmp_path, *ONE_STEP, "--verify")
    assert f"{path}: SHA-256 differs from manifest.json" in said and "--fix" in said


def test_images_too_small_to_be_judged_are_refused_before_the_training(photos: Path, tmp_path: Path) -> None:
    """SSIM needs 11 px without a border of `scale` px: 16 px are too few at 4x."""
    generate(photos, tmp_path, "-s", 4, "--size", 16)
    said = refused("--shards", tmp_path / "scale_4x", "--out", tmp_path / "runs", *ONE_STEP, "--patch-size", 16)
    assert "16 px" in said and "--size" in said


def test_a_folder_with_an_odd_name_is_trained_on(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards / "scale_2x", tmp_path / ODD))
    done = train(folder, tmp_path / "跑", "--run", ODD)
    assert done.code == 0 and str(tmp_path / "跑" / ODD / "best.pth") in done.out
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
    ("--model", "liite", "'liite' is not one of 'ultra_lite', 'lite', 'standard'."),
    ("--loss", "mse", "'mse' is not one of 'l1', 'charbonnier'."),
    ("--amp", "fp16", "--amp fp16 requires a CUDA device; on a CPU, pass --amp bf16, auto or off"),
    ("--device", "gpu", "--device gpu: expected auto, cpu, cuda or cuda:N"),
    ("--device", "", "expected auto, cpu, cuda or cuda:N"),
    ("--device", "meta", "--device meta: expected auto, cpu, cuda or cuda:N"),
    ("--device", "mkldnn", "--device mkldnn: expected auto, cpu, cuda or cuda:N"),
    ("--device", "cuda:99", "CUDA devices"),
    ("--seed", 2**64, f"--seed {2**64}"),
    ("--prefetch", 65, "--prefetch 65: expected at most 64"),
    ("--run", "x" * 300, "name too long"),
    ("--shards", "x" * 300, "File name too long"),
    ("--batsh-size", 4, "Did you mean"),
]


@pytest.mark.parametrize(("option", "value", "words"), VALUES, ids=lambda value: str(value)[:24])
def test_a_value_out_of_range_is_named(option: str, value: object, words: str, shards: Path, tmp_path: Path) -> None:
    said = refused("--shards", shards / "scale_2x", "--out", tmp_path / "runs", *ONE_STEP, option, value)
    assert words in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "../escaped", "not UTF-8 \udcff"])
def test_a_runs_name_is_a_name_and_no_path(name: str, shards: Path, tmp_path: Path) -> None:
    """A run that lies elsewhere is found by no --resume, and `..` writes into other people's folders."""
    said = refused("--shards", shards / "scale_2x", "--out", tmp_path / "a" / "runs", *ONE_STEP, "--run", name)
    assert "--run" in said
    assert not all_files(tmp_path)


@pytest.mark.parametrize("command", ["train", "evaluate", "upscale"])
def test_cuda_where_there_is_none(
    command: str, shards: Path, runs: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    weights = ("--weights", runs / "lr" / "best.pth")
    words: tuple[object, ...] = {
        "train": ("--shards", shards / "scale_2x", "--out", tmp_path, *ONE_STEP),
        "evaluate": ("evaluate", *weights, "--hr", photos),
        "upscale": ("upscale", *weights, photos, "-o", tmp_path),
    }[command]
    said = refused(*words, "--device", "cuda")
    assert "--device cuda: this machine has no CUDA device" in said and "pass --device cpu or auto" in said


def test_a_line_of_progress_has_no_holes(shards: Path, tmp_path: Path) -> None:
    assert ", ," not in train(shards / "scale_2x", tmp_path).err


# ---- --config


def configured(tmp_path: Path, shards: Path, text: str | dict[str, Any], *args: object) -> list[object]:
    """The words to train with a configuration file: `text`, or SMALL settings and these."""
    path = tmp_path / "设 置.yaml"
    small = {"shards": str(shards / "scale_2x"), "model": "ultra_lite", "patch-size": 24, "batch-size": 4}
    here = {"workers": 0, "device": "cpu", "steps": 1, "out": str(tmp_path / "runs")}
    if isinstance(text, dict):
        spelt = {name.replace("_", "-") for name in text}
        text = yaml.safe_dump({name: value for name, value in {**small, **here}.items() if name not in spelt} | text)
    path.write_text(text)
    return ["--config", path, *args]


def settings_of(run: Path) -> dict[str, Any]:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert isinstance(settings, dict)
    return settings


@pytest.mark.parametrize("spelling", ["batch-size", "batch_size"])
def test_a_setting_may_be_spelt_either_way_and_the_command_line_wins(
    spelling: str, shards: Path, tmp_path: Path
) -> None:
    words = configured(tmp_path, shards, {spelling: 3, "run": "file", "lr": "2e-3", "amp": "off"})
    assert trainer(*words).code == 0
    assert trainer(*words, "--batch-size", 2, "--run", "line").code == 0
    assert [settings_of(tmp_path / "runs" / name)["batch-size"] for name in ("file", "line")] == [3, 2]
    assert settings_of(tmp_path / "runs" / "line")["lr"] == 0.002


def test_off_is_a_word_although_yaml_reads_a_boolean(shards: Path, tmp_path: Path) -> None:
    """`amp: off` is what the help shows, and what people write."""
    words = configured(tmp_path, shards, {"run": "off"})
    path = tmp_path / "设 置.yaml"
    path.write_text(path.read_text() + "amp: off\n")
    done = trainer(*words)
    assert done.code == 0, done.err
    assert settings_of(tmp_path / "runs" / "off")["amp"] == "off"


@pytest.mark.parametrize(
    ("settings", "words"),
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
        ({"ema": None}, "ema"),
        ({"seed": None}, "seed"),
        ({"loss": None}, "loss"),
        ({"device": None}, "device"),
        ({"out": None}, "out"),
        ({"model": 3}, "model: '3' is not one of 'ultra_lite', 'lite', 'standard'"),
        ({"verify": 1}, "verify: "),
        ({"compile": "yes"}, "compile: "),
        ({"shards": 5}, "5"),
        ({"run": "a\0b"}, "run"),
        (
            "val-samples: 3\nval_samples: 4",
            "'val-samples' and 'val_samples' are the same setting; remove one of them",
        ),
        ("val-samples: 3\nval-samples: 3", "is not valid YAML: duplicate key 'val-samples'"),
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
def test_a_wrong_configuration_is_named(
    settings: str | dict[str, Any], words: str, shards: Path, tmp_path: Path
) -> None:
    said = refused(*configured(tmp_path, shards, settings))
    assert words in said and ("设 置.yaml" in said or "shards" in words or "5" in words)
    assert not (tmp_path / "runs").exists()


def test_a_folder_named_by_a_number_may_stand_in_a_configuration(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = trainer(*configured(tmp_path, shards, {"out": 2024, "run": 5}))
    assert done.code == 0, done.err
    assert (tmp_path / "2024" / "5" / "model.pth").exists()


def test_a_value_is_what_its_option_would_take_it_for(shards: Path, tmp_path: Path) -> None:
    """YAML 1.1 reads 010 as eight, 1_0 as ten, 1:30 as ninety, `yes` as true and 2024-01-01 as a date."""
    words = configured(tmp_path, shards, {})
    path = tmp_path / "设 置.yaml"
    begin = "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("steps"))
    for run in ("010", "1:30", "yes", "2024-01-01", ".inf"):
        path.write_text(f"{begin}run: {run}\nsteps: 010\nseed: 1_0\nclip: inf\n")
        found = settings_of(tmp_path / "runs" / run) if trainer(*words, "--steps", "01").code == 0 else {}
        assert {name: found.get(name) for name in ("run", "steps", "seed", "clip")} == {
            **{"run": run, "steps": 1, "seed": 10},
            "clip": float("inf"),
        }
    path.write_text(f"{begin}run: 1:30\nsteps: 010\n")
    said = refused(*words, "--resume")
    assert "was started with --steps 1, not 10" in said, "and what it was started with is read again, infinity included"


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert f"cannot read {tmp_path / 'none.yaml'}: No such file" in refused("--config", tmp_path / "none.yaml")
    assert f"cannot read {tmp_path}: Is a directory" in refused("--config", tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "bytes.yaml is not valid YAML" in refused("--config", tmp_path / "bytes.yaml")


# ---- --resume


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    """A copy of the run `lr`, whose configuration says that it lies in `runs`."""
    return Path(shutil.copytree(runs / "lr", tmp_path / "out" / "lr"))


def changed_state(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    state = torch.load(run / "state.pt", weights_only=True)
    change(state)
    torch.save(state, run / "state.pt")


def not_validated(run: Path) -> None:
    """As if the run had been stopped between its last step and the validation."""
    changed_state(run, lambda state: state["progress"].update(validated=False))


def test_moments_go_on_whatever_their_layout_in_memory(runs: Path, tmp_path: Path) -> None:
    """The fused optimiser goes by addresses: another layout would be other moments, or none that are there."""

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
        changed_state(run, change)
        done = trainer("--out", run.parent, "--run", "lr", "--resume")
        assert done.code == 0, done.err
        weights[change] = (run / "model.pth").read_bytes()
    assert weights[contiguous] == weights[plain]


def test_a_run_without_its_state_does_not_begin_anew(runs: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(runs / "lr", tmp_path / "lr"))
    (copied / "state.pt").unlink()
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    said = refused("--out", copied.parent, "--run", "lr", "--resume")
    assert f"{copied} has weights, but no state.pt to resume from; start a new run, e.g. with --init" in said
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_weights_that_are_behind_the_state_of_a_finished_run_are_written(runs: Path, tmp_path: Path) -> None:
    """As after a kill between the two."""
    copied = Path(shutil.copytree(runs / "lr", tmp_path / "lr"))
    right = (copied / "model.pth").read_bytes()
    (copied / "model.pth").write_bytes(right[:-100])
    os.utime(copied / "model.pth", ns=(0, (copied / "state.pt").stat().st_mtime_ns - 1))
    assert trainer("--out", copied.parent, "--run", "lr", "--resume").code == 0
    assert (copied / "model.pth").read_bytes() == right


def test_resuming_a_finished_run_says_so_and_changes_nothing(copied: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in copied.rglob("*") if path.is_file()}
    done = trainer("--out", copied.parent, "--run", "lr", "--resume")
    assert done.code == 0, done.err
    assert (
        f"{copied} has already finished, at step 2: nothing was trained. To train further, start a new run" in done.out
    )
    assert f"--init {copied / 'model.pth'}" in done.out
    assert "patches/s" not in done.out and "resumed" not in done.err
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in copied.rglob("*") if p.is_file()} == before


def test_a_state_beyond_the_end_of_its_run_is_refused(runs: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(runs / "lr", tmp_path / "lr"))
    changed_state(copied, lambda state: state["progress"].update(step=3))
    said = refused("--out", copied.parent, "--run", "lr", "--resume")
    assert (
        f"{copied / 'state.pt'} is from step 3, but the run ends after step 2; restore the value of `steps` in" in said
    )


@pytest.mark.parametrize("value", [2**31, 10**20, 10**400], ids=["2^31", "10^20", "10^400"])
@pytest.mark.parametrize(
    "option",
    ["epochs", "steps", "warmup", "grad-accum", "ranks", "patches-per-sample", "val-every", "save-every"],
)
def test_counts_beyond_their_bound_are_refused(option: str, value: int, shards: Path, tmp_path: Path) -> None:
    said = refused("--shards", shards / "scale_2x", "--out", tmp_path / "runs", *ONE_STEP, f"--{option}", value)
    assert f"--{option}: expected at most 2147483647" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["---\n", "null\n", "--- ~\n", "# nothing\n", ""])
def test_a_file_without_settings_has_none(text: str, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    done = train(shards / "scale_2x", tmp_path / "out", "--config", tmp_path / "c.yaml")
    assert done.code == 0, done.err


def test_resume_needs_a_run_that_is_there(runs: Path, tmp_path: Path) -> None:
    assert f"--resume requires --run NAME; runs in {runs}: lr, up" in refused("--out", runs, "--resume")
    said = refused("--out", runs, "--run", "other", "--resume")
    assert f"{runs / 'other' / 'config.yaml'} not found; runs in {runs}: lr, up" in said
    assert f"there are no runs in {tmp_path}" in refused("--out", tmp_path, "--run", "lr", "--resume")


def test_a_name_that_is_taken_is_refused(shards: Path, runs: Path) -> None:
    said = refused("--shards", shards / "scale_2x", "--out", runs, *ONE_STEP, "--run", "lr")
    assert f"{runs / 'lr'} already exists; continue it with --resume, or pass another --run" in said


def test_trainings_that_start_at_once_get_a_name_each(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path / "runs", *ONE_STEP)
    ended = start_within(monkeypatch, "trainer.training.run.make_learner", 2, *words)
    ended.append(trainer(*words))
    for name, done in zip(("ultra_lite-2x", "ultra_lite-2x-2", "ultra_lite-2x-3"), ended, strict=True):
        assert done.code == 0, done.err
        assert f"Run      {tmp_path / 'runs' / name}\n" in done.err, "and each from its beginning"


def test_of_trainings_that_start_at_once_with_one_name_the_others_are_refused(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--shards", shards / "scale_2x", "--out", tmp_path, *ONE_STEP, "--run", "r")
    with monkeypatch.context() as patch:
        first = start_within(patch, "trainer.training.run.make_learner", 1, *words)
        assert f"{tmp_path / 'r'} already exists; continue it with --resume, or pass" in refused(*words)
    assert first[0].code == 0, first
    shutil.rmtree(tmp_path / "r")
    second = start_within(monkeypatch, "trainer.runs.folder.RunFolder.write_config", 1, *words)
    assert trainer(*words).code == 0
    assert second[0].code == 2 and f"another process is training in {tmp_path / 'r'}; wait until" in second[0].err


@pytest.mark.parametrize(
    ("option", "value", "former"),
    [
        ("--batch-size", 8, "with --batch-size 4"),
        ("--steps", 3, "with --steps 2"),
        ("--lr", 0.001, "with --lr 0.004"),
        ("--warmup", 0, "with --warmup 1"),
        ("--val-every", 2, "with --val-every 200"),
        ("--patches-per-sample", 2, "with --patches-per-sample 1"),
        ("--seed", 1, "with --seed 0"),
        ("--model", "lite", "with --model ultra_lite"),
        ("--init", "a.pth", "without --init"),
    ],
)
def test_a_change_that_would_train_something_else_is_refused(
    option: str, value: object, former: str, copied: Path, tmp_path: Path
) -> None:
    go_on = ("--out", copied.parent, "--run", "lr", "--resume")
    words = f"{copied} was started {former}, not {value}; omit {option}"
    assert words in refused(*go_on, option, value)
    (tmp_path / "change.yaml").write_text(f"{option.removeprefix('--')}: {value}\n")
    assert words in refused(*go_on, "--config", tmp_path / "change.yaml")


def test_a_change_that_trains_the_same_is_accepted(shards: Path, copied: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(shards / "scale_2x", tmp_path / "moved"))
    not_validated(copied)
    free = ("--shards", moved, "--prefetch", 1, "--device", "auto", "--verify", "--workers", 0)
    done = trainer("--out", copied.parent, "--run", "lr", "--resume", *free)
    assert done.code == 0, done.err
    assert "resumed at step 2" in done.err and settings_of(copied)["shards"] == str(moved)
    (tmp_path / "all.yaml").write_text(f"run: lr\nout: {copied.parent}\nworkers: 0\n")
    assert trainer("--resume", "--config", tmp_path / "all.yaml").code == 0


def test_what_a_default_came_to_is_no_change(shards: Path, copied: Path, tmp_path: Path) -> None:
    """Defaults that follow from the network, the shards or other settings."""
    before = settings_of(copied)
    not_validated(copied)
    same = ("--lr", 0.004, "--warmup", 1, "--val-every", 200, "--patches-per-sample", 1, "--ranks", 1)
    go_on = ("--out", copied.parent, "--run", "lr", "--resume")
    done = trainer(*go_on, *same)
    assert done.code == 0 and "resumed at step 2" in done.err, done.err
    lines = [f"{option[2:]}: {value}\n" for option, value in zip(same[::2], same[1::2], strict=True)]
    (tmp_path / "same.yaml").write_text("".join(map(str, lines)))
    assert trainer(*go_on, "--config", tmp_path / "same.yaml").code == 0
    assert settings_of(copied) == before | {"out": str(copied.parent)}
    begun = ("--out", tmp_path, "--run", "e")
    assert trainer("--shards", shards / "scale_2x", *begun, *SMALL, "--epochs", 1).code == 0
    assert trainer(*begun, "--resume", "--steps", 9).code == 0
    assert f"{tmp_path / 'e'} was started with --steps 9, not 10" in refused(*begun, "--resume", "--steps", 10)


def test_a_finished_run_names_no_weights_that_are_gone(copied: Path, runs: Path) -> None:
    """The last ones are in its state, from where they come back; the best ones are nowhere else."""
    for name in ("model.pth", "best.pth"):
        (copied / name).unlink()
    shutil.rmtree(copied / "previews")
    done = trainer("--out", copied.parent, "--run", "lr", "--resume")
    assert done.code == 0, done.err
    assert f"{copied / 'model.pth'}  final weights\n" in done.out
    assert (copied / "model.pth").read_bytes() == (runs / "lr" / "model.pth").read_bytes()
    assert f"{copied / 'best.pth'} is missing ( best weights, " in done.out
    assert f"{copied / 'previews'}/ is missing ( bicubic | network | HR\n" in done.out


def test_a_run_that_was_moved_or_renamed_goes_on_where_it_lies_now(
    copied: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration still names the old folder, where there may even be another run of that name."""
    before = {path: path.stat().st_mtime_ns for path in (runs / "lr").rglob("*")}
    not_validated(copied)
    copied.parent.rename(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    done = trainer("--run", "lr", "--resume")
    assert done.code == 0, done.err
    assert "Run      runs/lr, resumed" in done.err
    assert {path: path.stat().st_mtime_ns for path in (runs / "lr").rglob("*")} == before
    (tmp_path / "runs" / "lr").rename(tmp_path / "runs" / "夜")
    assert trainer("--run", "夜", "--resume").code == 0


def test_lines_of_the_journal_end_at_line_feeds_alone(copied: Path) -> None:
    """Names of files may hold what Unicode also takes for an end of line, and come into the journal with messages."""
    noted = {"event": "damaged", "step": 1, "reason": "a\u2028b\u2029c\u0085d\x0be"}
    line = json.dumps(noted, ensure_ascii=False)
    before = (copied / "journal.jsonl").read_text(encoding="utf-8") + line
    not_validated(copied)
    state = shutil.copy(copied / "state.pt", copied.parent)
    for end in ("\n", "", '\n{"event": "train", "st', '\n{"event": "val", "step": 3}\n', "\n" + "[" * 100_000 + "\n"):
        (copied / "journal.jsonl").write_text(before + end, encoding="utf-8", newline="")
        shutil.copy(state, copied / "state.pt")
        done = trainer("--out", copied.parent, "--run", "lr", "--resume")
        assert done.code == 0, done.err
        kept, _, new = (copied / "journal.jsonl").read_bytes().decode().removesuffix("\n").rpartition("\n")
        assert kept == before and json.loads(new)["event"] == "val", end[:40]


def test_other_shards_are_refused(shards: Path, photos: Path, copied: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path / "other", "-s", 2, "--seed", 1)
    for folder in (shards / "scale_3x", tmp_path / "other" / "scale_2x"):
        said = refused("--out", copied.parent, "--run", "lr", "--resume", "--shards", folder)
        assert f"{copied / 'state.pt'} was trained on other shards, so" in said
        assert f"--init {copied / 'model.pth'}" in said


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def weights_instead(path: Path) -> None:
    shutil.copy(path.with_name("model.pth"), path)


def version_alone(path: Path) -> None:
    torch.save({"version": 1}, path)


def without_optimizer(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    del state["optimizer"]
    torch.save(state, path)


def of_another_network(path: Path) -> None:
    config = path.with_name("config.yaml")
    config.write_text(config.read_text().replace("model: ultra_lite", "model: lite"))


@pytest.mark.parametrize("spoil", [cut, nothing, weights_instead, version_alone, without_optimizer, of_another_network])
def test_a_state_that_cannot_be_gone_on_with_is_named(spoil: Callable[[Path], None], copied: Path) -> None:
    spoil(copied / "state.pt")
    said = refused("--out", copied.parent, "--run", "lr", "--resume")
    assert str(copied / "state.pt") in said and f"--init {copied / 'model.pth'}" in said


def test_a_state_without_a_configuration_is_nothing_to_begin_a_run_on(shards: Path, copied: Path) -> None:
    (copied / "config.yaml").unlink()
    said = refused("--shards", shards / "scale_2x", "--out", copied.parent, *ONE_STEP, "--model", "lite", "--run", "lr")
    assert f"{copied} already exists" in said


def test_a_broken_configuration_of_a_run_is_named(copied: Path) -> None:
    (copied / "config.yaml").write_text("shards: [")
    said = refused("--out", copied.parent, "--run", "lr", "--resume")
    assert f"{copied / 'config.yaml'} is not valid YAML" in said


# ---- weights


@pytest.mark.parametrize(
    ("folder", "args", "theirs", "ours"),
    [
        ("scale_3x", (), "ultra_lite at 2x", "ultra_lite at 3x"),
        ("scale_2x", ("--model", "lite"), "ultra_lite at 2x", "lite at 2x"),
        ("scale_2x", ("--input", "up"), "ultra_lite at 2x", "ultra_lite at 1x"),
    ],
)
def test_weights_of_another_network_are_refused_and_leave_nothing(
    folder: str, args: tuple[object, ...], theirs: str, ours: str, shards: Path, runs: Path, tmp_path: Path
) -> None:
    weights = runs / "lr" / "best.pth"
    said = refused("--shards", shards / folder, "--out", tmp_path, *ONE_STEP, *args, "--init", weights)
    assert f"weights {weights} are for {theirs}, but this run trains {ours}; pass other weights" in said
    assert not list(tmp_path.iterdir()), "an empty folder takes the name of the run that comes next"


def test_weights_for_another_scale_are_refused_by_every_command(
    shards: Path, runs: Path, photos: Path, tmp_path: Path
) -> None:
    weights = runs / "lr" / "best.pth"
    three = shards / "scale_3x"
    assert f"{weights} upscales 2x, but {three} is 3x" in refused("evaluate", "--weights", weights, "--shards", three)
    said = refused("evaluate", "--weights", weights, "--hr", photos, "--scale", 3)
    assert f"{weights} upscales 2x, but --scale 3 is 3x" in said
    said = refused("upscale", "--weights", weights, photos, "-o", tmp_path, "--scale", 4)
    assert "this network upscales 2x, not 4x; omit --scale" in said


@pytest.mark.parametrize("command", ["train", "evaluate", "upscale", "export"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.pth", "no such file: "),
        ("lr", "is a folder; pass a file in it: (best.pth, model.pth"),
        ("lr/state.pt", "is a training state, used to resume a run, not weights"),
        ("lr/config.yaml", "is not a weights file: expected a file saved by PyTorch, found a file that starts with"),
    ],
)
def test_what_is_no_weights_is_refused_by_every_command(
    command: str, name: str, words: str, shards: Path, runs: Path, photos: Path, tmp_path: Path
) -> None:
    path = runs / name
    said = refused(
        *{
            "train": ("--shards", shards / "scale_2x", "--out", tmp_path, *ONE_STEP, "--init", path),
            "evaluate": ("evaluate", "--weights", path, "--hr", photos),
            "upscale": ("upscale", "--weights", path, photos, "-o", tmp_path),
            "export": ("export", "--weights", path, "-o", tmp_path / "model.onnx"),
        }[command]
    )
    assert str(path) in said and words in said
    assert not list(tmp_path.iterdir())


# ---- evaluate


@pytest.fixture(scope="module")
def hr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in colour, in grey, with alpha and without any texture, with odd names."""
    folder = tmp_path_factory.mktemp("清晰 照片")
    colour = Image.fromarray(make_photo(40, 51, 1))
    colour.save(folder / f"{ODD}.png")
    colour.convert("L").save(folder / "grey.png")
    colour.convert("RGBA").save(folder / "alpha.png")
    Image.new("RGB", (40, 40), (128, 128, 128)).save(folder / "flat.png")
    return folder


def test_evaluate_needs_exactly_one_thing_to_judge_on(shards: Path, runs: Path, hr: Path) -> None:
    weights = ("evaluate", "--weights", runs / "lr" / "best.pth")
    words = "expected images to evaluate: pass either --shards shards/scale_4x or --hr FOLDER_OF_PHOTOS"
    assert words in refused(*weights)
    assert words in refused(*weights, "--shards", shards / "scale_2x", "--hr", hr)


def test_the_json_is_valid_and_its_means_are_the_tables(runs: Path, hr: Path) -> None:
    words = ("evaluate", "--weights", runs / "lr" / "best.pth", "--hr", hr)
    found = json.loads(trainer(*words, "--json").out)
    assert [image["image"] for image in found["images"]] == ["alpha.png", "flat.png", "grey.png", f"{ODD}.png"]
    assert found["scale"] == 2 and found["data"] == str(hr)
    flat = found["images"][1]["bicubic"]
    assert flat["psnr_rgb"] is None and flat["psnr_y"] is None and flat["ssim_y"] == 1
    table = trainer(*words).out
    for who in ("bicubic", "network"):
        row = []
        for name in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"):
            values = [image[who][name] for image in found["images"] if image[who][name] is not None]
            assert found["mean"][who][name] == pytest.approx(statistics.fmean(values))
            row.append(f"{found['mean'][who][name]:.2f} dB" if "psnr" in name else f"{found['mean'][who][name]:.4f}")
        line = next(line for line in table.splitlines() if line.startswith(who))
        assert line.split() == " ".join([who, *row]).split()


def test_equal_images_alone_have_no_finite_mean(runs: Path, hr: Path, tmp_path: Path) -> None:
    shutil.copy(hr / "flat.png", tmp_path)
    words = ("evaluate", "--weights", runs / "lr" / "best.pth", "--hr", tmp_path)
    assert json.loads(trainer(*words, "--json").out)["mean"]["bicubic"]["psnr_y"] is None
    assert "inf dB" in trainer(*words).out


@pytest.mark.parametrize("run", ["lr", "up"])
def test_evaluate_gives_the_figures_that_training_reported(run: str, shards: Path, runs: Path) -> None:
    words = ("evaluate", "--weights", runs / run / "model.pth", "--shards", shards / "scale_2x", "--json")
    found = json.loads(trainer(*words).out)["mean"]
    lines = [json.loads(line) for line in (runs / run / "journal.jsonl").read_text().splitlines()]
    val = next(line for line in lines if line["event"] == "val")
    for name in ("psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb"):
        assert found["bicubic"][name] == pytest.approx(val[f"bicubic_{name}"], abs=1e-9)
        assert found["network"][name] == pytest.approx(val[name], abs=1e-3)  # rounding at other sizes of batches


def test_evaluate_of_the_training_split(shards: Path, runs: Path) -> None:
    words = ("evaluate", "--weights", runs / "lr" / "best.pth", "--shards", shards / "scale_2x")
    assert "(train), 39 images at 2x" in trainer(*words, "--split", "train").out
    assert "omit --scale" in refused(*words, "--scale", 3)


def test_a_network_that_restores_needs_a_scale_for_photos(runs: Path, hr: Path) -> None:
    words = ("evaluate", "--weights", runs / "up" / "best.pth", "--hr", hr)
    assert "pass the scale, e.g. --scale 4" in refused(*words)
    assert "4 images at 2x" in trainer(*words, "--scale", 2).out


def test_photos_that_cannot_be_judged_are_named(runs: Path, tmp_path: Path) -> None:
    words = ("evaluate", "--weights", runs / "lr" / "best.pth", "--hr", tmp_path)
    assert f"no photos found ({tmp_path})" in refused(*words)
    small = tmp_path / "小.png"
    Image.new("RGB", (14, 40)).save(small)
    assert f"{small} is too small for an evaluation at 2x; remove it from {tmp_path}" in refused(*words)
    Image.fromarray(make_photo(60, 60, 1)).save(small)
    assert trainer(*words).code == 0
    small.write_bytes(small.read_bytes()[:2000])
    assert f"cannot read {small}: truncated PNG" in refused(*words)
    assert "does not exist" in refused(*words[:-1], tmp_path / "none")


def test_a_single_photo_may_be_judged(runs: Path, hr: Path) -> None:
    words = ("evaluate", "--weights", runs / "lr" / "best.pth", "--hr", hr / "grey.png", "--json")
    assert [image["image"] for image in json.loads(trainer(*words).out)["images"]] == ["grey.png"]


def test_shards_without_validation_samples_have_nothing_to_judge_on(photos: Path, runs: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, "--val-fraction", 0)
    words = ("evaluate", "--weights", runs / "lr" / "best.pth", "--shards", tmp_path / "scale_2x")
    assert "no images found" in refused(*words)


@pytest.mark.parametrize("extension", ["json", "hr.npy"])
def test_a_damaged_validation_sample_is_named(extension: str, mine: Path, runs: Path, tmp_path: Path) -> None:
    member = next(m for m in load_index(mine / "val-000000.idx")[0] if m.extension == extension)
    overwrite(mine / "val-000000.tar", member.offset, bytes(40))
    words = ("evaluate", "--weights", runs / "lr" / "best.pth", "--shards", mine)
    for done in (trainer(*words), train(mine, tmp_path / "runs")):
        assert done.code == 1
        assert "val-000000" in done.err and f"`python -m shardgen verify {mine} --fix`" in done.err


def test_the_network_is_moved_to_the_device_that_was_chosen(
    runs: Path, hr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a GPU is asked for its memory and the CPU does the work."""
    seen = set()

    def apply(network: torch.nn.Module, image: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.add(next(network.parameters()).device.type)
        return torch.zeros(1, 3, 2 * image.shape[2], 2 * image.shape[3], dtype=torch.uint8)

    monkeypatch.setattr(device, "choose_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(image_function, "choose_tile", lambda *args: None)
    monkeypatch.setattr(image_function, "apply_within_memory", apply)
    assert trainer("evaluate", "--weights", runs / "lr" / "best.pth", "--hr", hr).code == 0
    assert seen == {"meta"}


# ---- upscale, export


def test_photos_are_enlarged(runs: Path, hr: Path, tmp_path: Path) -> None:
    done = trainer("upscale", "--weights", runs / "lr" / "best.pth", hr, "-o", tmp_path / "结 果", "--compare")
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "结 果").iterdir()} == {
        f"{stem}_2x{kind}.png" for stem in (ODD, "grey", "alpha", "flat") for kind in ("", "_compare")
    }
    assert "51x40 to 102x80 px" in done.out
    with Image.open(tmp_path / "结 果" / "alpha_2x.png") as image:
        assert image.size == (102, 80)


def test_a_network_that_restores_needs_a_scale_to_enlarge(runs: Path, hr: Path, tmp_path: Path) -> None:
    words = ("upscale", "--weights", runs / "up" / "best.pth", hr / "grey.png", "-o", tmp_path / "out.png")
    assert "pass the scale, e.g. --scale 4" in refused(*words)
    assert trainer(*words, "--scale", 2).code == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (102, 80) and np.asarray(image).ndim == 2


def test_words_that_upscale_cannot_follow(runs: Path, hr: Path, tmp_path: Path) -> None:
    words = ("upscale", "--weights", runs / "lr" / "best.pth")
    assert "Missing argument 'PHOTOS...'" in refused(*words, "-o", tmp_path)
    assert "Missing option '-o'" in refused(*words, hr)
    assert "does not exist" in refused(*words, tmp_path / "none.png", "-o", tmp_path)
    assert "no photos found" in refused(*words, tmp_path, "-o", tmp_path)
    assert "pass a folder" in refused(*words, hr, "-o", tmp_path / "one.png")
    assert "JPEG does not support transparency" in refused(*words, hr / "alpha.png", "-o", tmp_path / "one.jpg")
    assert "--tile 4: this network needs a margin of 10 px" in refused(*words, hr, "-o", tmp_path, "--tile", 4)
    assert "expected auto, a number of px such as 512" in refused(*words, hr, "-o", tmp_path, "--tile", "big")


@pytest.mark.parametrize("command", ["upscale", "export"])
def test_an_output_below_a_file_is_named(command: str, runs: Path, hr: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    weights = ("--weights", runs / "lr" / "best.pth")
    photos = (hr / "grey.png",) if command == "upscale" else ()
    done = trainer(command, *weights, *photos, "-o", tmp_path / "file" / "below.png")
    assert done.code in (1, 2)
    assert f"cannot write {tmp_path / 'file' / 'below.png'}" in done.err and "Traceback" not in done.err


def test_a_network_is_exported(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "模型 1.onnx"
    done = trainer("export", "--weights", runs / "lr" / "best.pth", "-o", path)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{path}: ultra_lite, 2x, opset 18, ")
    assert all_files(tmp_path) == {path.name}


def test_weights_that_have_diverged_are_refused(runs: Path, hr: Path, tmp_path: Path) -> None:
    state = read_weights(runs / "lr" / "best.pth")
    state["body.0.weight"] = state["body.0.weight"] * float("nan")
    save_weights(tmp_path / "nan.pth", state, None)
    said = refused("evaluate", "--weights", tmp_path / "nan.pth", "--hr", hr)
    assert "not finite" in said and "use weights from an earlier step" in said


# ---- places that cannot be


LONG_NAME = "x" * 300


@pytest.mark.parametrize(
    "words",
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
    ids=lambda words: "-".join(word for word in map(str, words) if word.startswith("--") or word.islower())[:60],
)
def test_a_name_that_no_file_can_have_is_no_traceback(
    words: tuple[object, ...], shards: Path, runs: Path, hr: Path, tmp_path: Path
) -> None:
    places = {"SHARDS": shards / "scale_2x", "OUT": tmp_path, "PHOTOS": hr, "WEIGHTS": runs / "lr" / "best.pth"}
    done = trainer(*(places.get(str(word), word) for word in words))
    assert done.code in (1, 2)
    assert "Error: " in done.err and "File name too long" in done.err


WITHOUT_RIGHTS = """
    import os, sys
    if os.geteuid() == 0:  # root, but without the right to pass over permissions
        less = "-dac_override,-dac_read_search"
        words = ["setpriv", f"--bounding-set={less}", f"--inh-caps={less}", *sys.argv[1:]]
    else:
        words = sys.argv[1:]
    os.execvp(words[0], words)
"""


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.slow
def test_a_place_without_permission_is_named(command: str, shards: Path, runs: Path, hr: Path, tmp_path: Path) -> None:
    place = tmp_path / "locked"
    place.mkdir(mode=0o555 if command == "train" else 0)
    words: tuple[object, ...] = {
        "train": ("--shards", shards / "scale_2x", "--out", place, *ONE_STEP),
        "evaluate": ("evaluate", "--weights", place / "best.pth", "--hr", hr),
    }[command]
    program = [sys.executable, "-c", textwrap.dedent(WITHOUT_RIGHTS), *trainer_command(*words)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert "Error: " in done.stderr and str(place) in done.stderr and "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


# ---- help


def test_help_lists_the_commands_without_starting_anything() -> None:
    done = run_trainer("--help")
    assert done.returncode == 0 and done.stderr == ""
    for part in ("--shards", "evaluate", "upscale", "export", "  python -m trainer --shards shards/scale_4x"):
        assert part in done.stdout


@pytest.mark.parametrize("command", ["", "evaluate", "upscale", "export"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_option_has_its_help_and_its_default(command: str, flag: str) -> None:
    done = trainer(*([command] if command else []), flag)
    assert done.code == 0
    assert f"  python -m trainer {command}" in done.out
    needs_none = {
        "--resume",
        "--verify",
        "--compile",
        "--resident",
        "--config",
        "--init",
        "--steps",
        "--shards",
        "--hr",
        "--json",
        "--cache",
        "--cache-decoded",
    }
    needs_none |= {"--compare", "--help", "--version", "--weights", "--output", "--scale"}
    options = done.out.split("Options:")[1].split("Commands:")[0]
    for text in (" ".join(part.split()) for part in options.replace("\n  -", "\0-").split("\0")[1:]):
        name = next(word for word in text.replace(",", " ").split() if word.startswith("--"))
        required = "required" in text
        assert len(text.split()) > 3, text
        assert name in needs_none or required or "default:" in text, text
