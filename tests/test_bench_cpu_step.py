"""The benchmark of training steps on a CPU, and the equality of the two steps that it compares."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import bench_cpu_step, cpu_step_run
from trainer.training.device import Precision


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_weights_equal_those_of_the_plain_step(dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit: training gives what it would give with PyTorch's modules."""
    monkeypatch.setattr(cpu_step_run, "choose_precision", lambda *_: Precision(dtype))
    monkeypatch.setattr(cpu_step_run, "PATCH_PX", 32)
    batch = cpu_step_run.noise(2)
    (plain_network, plain_ema), (network, ema) = (
        cpu_step_run.networks("ultra_lite"),
        cpu_step_run.networks("ultra_lite"),
    )
    initial = network.state_dict()["body.3.weight"].clone()  # slopes of a PReLU
    plain = cpu_step_run.plain_step(plain_network, plain_ema)
    ours = cpu_step_run.trainer_step(network, ema, compiles=False)
    for number in range(4):
        assert plain(number, batch).item() == pytest.approx(ours(number, batch).item(), rel=1e-6)
    for expected, found in ((plain_network, network), (plain_ema, ema)):
        assert all(torch.equal(found.state_dict()[name], value) for name, value in expected.state_dict().items())
    assert not torch.equal(network.state_dict()["body.3.weight"], initial)


@pytest.mark.slow
def test_command_compares_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_cpu_step, "_BATCH", {"ultra_lite": 1})
    monkeypatch.setattr(bench_cpu_step, "_STEPS", {"ultra_lite": 2})
    output = tmp_path / "cpu_step.json"
    result = CliRunner().invoke(bench_cpu_step.main, ["--rounds", "1", "--model", "ultra_lite", "-o", str(output)])
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())
    assert found["command"] == "python -m benchmarks.bench_cpu_step --rounds 1 --model ultra_lite"
    plain, eager = (found["networks"]["ultra_lite"][case] for case in ("plain", "eager"))
    assert plain["losses"] == pytest.approx(eager["losses"], rel=1e-6) and plain["step_seconds"]["median"] > 0
    (ratio,) = found["networks"]["ultra_lite"]["speed_up_in_cpu_seconds"]
    assert ratio["ratio"]["median"] > 0
    assert "ultra_lite: eager / plain, seconds" in result.output


def test_only_the_compact_networks_are_compiled() -> None:
    assert bench_cpu_step.cases(("lite", "standard"), compiled=True) == [
        ("lite", "plain"),
        ("lite", "eager"),
        ("lite", "compiled"),
        ("standard", "plain"),
        ("standard", "eager"),
    ]
