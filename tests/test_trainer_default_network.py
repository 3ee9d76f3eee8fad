"""The network of a run without `--model` and `--init`: that of its device, which a resumed run keeps."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from helpers import SMALL, Result, trainer
from test_trainer_ranks import ranks_of, wait

import srshards
from trainer.training import network
from trainer.training.config import TrainConfig
from trainer.training.network import choose_spec

UNNAMED = SMALL[2:]  # without --model


def train(shards: Path, out: Path, *args: object) -> Result:
    """Train a step, which must succeed."""
    result = trainer("--shards", shards / "scale_2x", "--out", out, *UNNAMED, "--steps", 1, *args)
    assert result.code == 0, result.err
    return result


def models(run: Path) -> tuple[str, str]:
    """Return the network according to config.yaml and to plan.json."""
    config, plan = (run / name for name in ("config.yaml", "plan.json"))
    return yaml.safe_load(config.read_text())["model"], json.loads(plan.read_text())["model"]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("machine", "device", "expected"),
    [
        ("cpu", "auto", "ultra_lite"),
        ("cpu", "cpu", "ultra_lite"),
        ("gpus", "auto", "lite"),
        ("gpus", "cuda", "lite"),
        ("gpus", "cuda:1", "lite"),
        ("gpus", "cpu", "ultra_lite"),
        ("mps", "mps", "lite"),
    ],
)
def test_the_device_decides(
    machine: str, device: str, expected: str, shards: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(machine)
    folder = srshards.open(shards / "scale_2x")
    config = TrainConfig(folder.path, device=device)
    assert choose_spec(config, folder).name == expected
    named = TrainConfig(folder.path, device=device, model="compact_ultra")
    assert choose_spec(named, folder).name == "compact_ultra"


def test_the_help_names_both() -> None:
    text = " ".join(trainer("--help").out.split())
    assert "Network to train. [default: that of --init, or else lite on a GPU, ultra_lite on a CPU]" in text


def test_a_run_says_and_records_its_network(shards: Path, tmp_path: Path) -> None:
    result = train(shards, tmp_path)
    assert "Network  ultra_lite, 45,156 parameters, LR in, 2x out\n" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["ultra_lite-2x"]
    assert models(tmp_path / "ultra_lite-2x") == ("ultra_lite", "ultra_lite")


def test_the_network_of_init_does_not_depend_on_the_device(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(shards, tmp_path / "first", "--run", "r")
    monkeypatch.setattr(network, "default_model", lambda device_type: "lite")
    result = train(shards, tmp_path, "--init", tmp_path / "first" / "r" / "model.pth")
    assert "Network  ultra_lite, " in result.err and models(tmp_path / "ultra_lite-2x") == ("ultra_lite", "ultra_lite")


@pytest.mark.parametrize("missing", [(), ("plan.json",), ("state.pt", "model.pth", "best.pth")])
def test_a_resumed_run_keeps_its_network_on_another_device(
    missing: tuple[str, ...], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a run of an earlier version, whose plan.json has no network, and one that stopped before its first save."""
    train(shards, tmp_path, "--run", "r")
    run = tmp_path / "r"
    state = torch.load(run / "state.pt", weights_only=True)
    state["progress"]["validated"] = False  # otherwise the run has finished
    torch.save(state, run / "state.pt")
    for name in missing:
        (run / name).unlink()
    monkeypatch.setattr(network, "default_model", lambda device_type: "lite")
    result = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert result.code == 0, result.err
    assert "Network  ultra_lite, " in result.err and models(run) == ("ultra_lite", "ultra_lite")
    shutil.rmtree(run)
    assert "Network  lite, " in train(shards, tmp_path, "--run", "r").err, "a new run would have another network"


def one_rank_has_another_device() -> None:
    if os.environ["RANK"] == "1":
        network.default_model = lambda device_type: "lite"


@pytest.mark.slow
def test_ranks_agree(shards: Path, tmp_path: Path) -> None:
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *UNNAMED, "--steps", 1)
    with ranks_of(2, tmp_path, *args, prepare=(one_rank_has_another_device, ())) as ranks:
        codes, output = wait(ranks)
    assert codes == {0} and "Network  ultra_lite, " in output, output
    assert models(tmp_path / "r") == ("ultra_lite", "ultra_lite")
