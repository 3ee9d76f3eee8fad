"""Optimisers of pytorch_optimizer: their updates by independent formulas, states, runs and what is refused."""

import copy
import json
import sys
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import SMALL, events, trainer
from test_trainer_faults import on_step, terminate
from test_trainer_ranks import ranks_of, wait
from torch import Tensor

from srshards import PatchBatch
from srshards.errors import UsageError
from trainer.loss_terms import LossTerm
from trainer.models import Network, network_spec
from trainer.models.tensor_file import load_tensors, save_tensors
from trainer.training.device import Precision
from trainer.training.learner import Learner, StepSettings
from trainer.training.objective import Objective
from trainer.training.optimizers import Optimizer, make_optimizer
from trainer.training.schedule import constant
from trainer.training.snapshot import Snapshot
from trainer.training.step_mode import StepMode, choose_step_mode

L1 = Objective([LossTerm("l1")])
OTHERS = ("adan", "schedulefree", "muon")
RATES = [0.5e-3, 1e-3, 1e-3, 2e-3, 1e-3]


def network() -> Network:
    return network_spec("ultra_lite", 2).build(0).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def gradients_of(net: Network, seed: int) -> list[Tensor]:
    """Set random gradients, in the layout of their parameters, and return copies of them."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        noise = torch.rand(parameter.shape, generator=draw) - 0.5
        parameter.grad = torch.empty_like(parameter).copy_(noise)
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


def updated(optimizer: Optimizer, net: Network, rate: float, seed: int) -> list[Tensor]:
    """Do a step, and return the gradients it was for."""
    gradients = gradients_of(net, seed)
    optimizer.set_rate(rate)
    optimizer.step()
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())
    return gradients


def assert_close(net: Network, expected: list[Tensor]) -> None:
    for found, value in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), value.float(), rtol=1e-5, atol=1e-7)


# ---- updates


def test_adan_follows_its_paper() -> None:
    """Xie et al., 2022, algorithm 1 in float64, with bias correction, and with the betas of the code."""
    net = network()
    x = [parameter.detach().double() for parameter in net.parameters()]
    optimizer = make_optimizer("adan", net, 1.0, False)
    m, v, n = ([torch.zeros_like(one) for one in x] for _ in range(3))
    before: list[Tensor] | None = None
    for k, rate in enumerate(RATES, 1):
        g = [one.double() for one in updated(optimizer, net, rate, k)]
        for i, gradient in enumerate(g):
            change = gradient - (before[i] if before else gradient)
            m[i] = 0.98 * m[i] + 0.02 * gradient
            v[i] = 0.92 * v[i] + 0.08 * change
            n[i] = 0.99 * n[i] + 0.01 * (gradient + 0.92 * change) ** 2
            step = m[i] / (1 - 0.98**k) + 0.92 * v[i] / (1 - 0.92**k)
            x[i] -= rate * step / ((n[i] / (1 - 0.99**k)).sqrt() + 1e-8)
        before = g
    assert_close(net, x)


def test_schedule_free_follows_its_paper() -> None:
    """Defazio et al., 2024: x, y and z kept separately in float64; the average weights steps by the squared rate."""
    net = network()
    settings = StepSettings(9, 1e-3, 0, L1, Precision(None), 1, 1.0, 0.0, StepMode(), constant, "schedulefree")
    learner = Learner(net, copy.deepcopy(net), settings)
    y = [parameter.detach().double() for parameter in net.parameters()]
    x, z = copy.deepcopy(y), copy.deepcopy(y)
    square = [torch.zeros_like(one) for one in y]
    weights, largest = 0.0, 0.0
    for k, rate in enumerate(RATES, 1):
        gradients = updated(learner._optimizer, net, rate, k)
        assert learner._ema is not None
        learner._ema.update(net)
        largest = max(largest, rate)
        weights += largest**2
        for i, gradient in enumerate(gradients):
            square[i] = 0.99 * square[i] + 0.01 * gradient.double() ** 2
            z[i] = z[i] - rate * gradient / ((square[i] / (1 - 0.99**k)).sqrt() + 1e-8)
            x[i] = x[i] + largest**2 / weights * (z[i] - x[i])
            y[i] = 0.1 * z[i] + 0.9 * x[i]
        assert_close(net, y)
        assert_close(learner.evaluation_network, x)


def test_muon_orthogonalises_hidden_weights_and_adamw_updates_the_others() -> None:
    """The updates of hidden weights have the RMS of AdamW's, 0.2 times the rate, whatever their shape."""
    net = network()
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    convolutions = [name for name, parameter in net.named_parameters() if parameter.dim() == 4]
    updated(make_optimizer("muon", net, 1.0, False), net, 1e-3, 0)
    for name, parameter in net.named_parameters():
        change = (parameter.detach() - before[name]) / 1e-3
        if name in convolutions[1:-1]:
            values = torch.linalg.svdvals(change.flatten(1)) / (0.2 * max(change.flatten(1).shape) ** 0.5)
            assert values.min() > 0.6 and values.max() < 1.3, name
        else:
            assert torch.allclose(change.abs(), torch.ones(()), atol=1e-2), name


# ---- states


def as_saved(state: dict[str, Any], path: Path) -> dict[str, Any]:
    save_tensors(path, Snapshot().take(state))
    loaded: dict[str, Any] = load_tensors(path)
    return loaded


@pytest.mark.parametrize("name", OTHERS)
def test_states_are_restored_exactly(name: str, tmp_path: Path) -> None:
    """After being written to a file, also before the first step."""
    whole, resumed = network(), network()
    reference, optimizer = make_optimizer(name, whole, 1.0, False), make_optimizer(name, resumed, 1.0, False)
    for step, rate in enumerate(RATES):
        if step in (0, 3):
            state = as_saved(optimizer.state_dict(), tmp_path / "state.pt")
            optimizer = make_optimizer(name, resumed, 1.0, False)
            optimizer.load_state_dict(state)
        for net, one in ((whole, reference), (resumed, optimizer)):
            updated(one, net, rate, step)
        assert all(map(torch.equal, whole.parameters(), resumed.parameters())), step


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state["state"].popitem(),
        lambda state: state["state"][max(state["state"])].popitem(),
        lambda state: state["state"][0].update(z=torch.zeros(1)),
        lambda state: state["counters"].pop(),
        lambda state: state["counters"][0].update(step="7"),
        lambda state: state["counters"][0].update(lr=0.1),
        lambda state: state.pop("counters"),
    ],
)
@pytest.mark.parametrize("name", OTHERS)
def test_a_state_that_does_not_fit_is_refused(name: str, damage: Callable[[Any], object]) -> None:
    net = network()
    optimizer = make_optimizer(name, net, 1.0, False)
    updated(optimizer, net, 1e-3, 0)
    state = optimizer.state_dict()
    damage(state)
    with pytest.raises((ValueError, KeyError)):
        make_optimizer(name, network(), 1.0, False).load_state_dict(state)


@pytest.mark.parametrize("name", OTHERS)
def test_gradients_that_are_not_finite_are_skipped_in_half_precision(name: str) -> None:
    net = network()
    settings = StepSettings(9, 1e-3, 0, L1, Precision(torch.float16), 1, 1.0, 0.0, StepMode(), optimizer=name)
    learner = Learner(net, None, settings)
    learner.restore({**learner.state(), "scaler": {**learner.state()["scaler"], "scale": 2.0**60}})
    before = [parameter.detach().clone() for parameter in net.parameters()]
    draw = torch.Generator().manual_seed(0)
    hr, lr = (torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=draw) for side in (16, 8))
    learner.step(0, repeat(PatchBatch(hr, lr, ())))
    assert all(map(torch.equal, net.parameters(), before)) and learner.state()["scaler"]["scale"] == 2.0**59
    learner.restore({**learner.state(), "scaler": {**learner.state()["scaler"], "scale": 2.0**10}})
    learner.step(1, repeat(PatchBatch(hr, lr, ())))
    assert learner.is_finite() and not all(map(torch.equal, net.parameters(), before))


@pytest.mark.parametrize("name", OTHERS)
def test_rounding_errors_of_gradients_are_not_amplified(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a batch and of its two halves, which two processes compute, differ by rounding."""
    learners, square = [], Objective([LossTerm("l1")])
    monkeypatch.setattr(square, "_functions", [_square])
    for parts in (1, 2):
        settings = StepSettings(9, 1e-3, 0, square, Precision(None), parts, 0.0, 0.0, StepMode(), constant, name)
        learners.append(Learner(network(), None, settings))
    draw = torch.Generator().manual_seed(0)
    for step in range(6):
        hr, lr = (torch.randint(0, 256, (4, side, side, 3), dtype=torch.uint8, generator=draw) for side in (32, 16))
        halves = [PatchBatch(hr[part], lr[part], ()) for part in (slice(0, 2), slice(2, 4))]
        learners[0].step(step, iter([PatchBatch(hr, lr, ())]))
        learners[1].step(step, iter(halves))
    for one, other in zip(*(learner.network.parameters() for learner in learners), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-6)


def _square(output: Tensor, target: Tensor) -> Tensor:
    return (output.float() - target).square().mean()


# ---- runs


def arguments(shards: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("--shards", shards / "scale_2x", "--out", out, *SMALL, "--steps", 8, "--val-every", 4, "--run", "r", *more)


@pytest.mark.parametrize(("name", "lr"), [("adan", 0.02), ("schedulefree", 0.004), ("muon", 0.004)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    name: str, lr: float, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trainer(*arguments(shards, tmp_path / "whole", "--optimizer", name)).code == 0
    with monkeypatch.context() as patch:
        on_step(patch, 5, terminate)
        stopped = trainer(*arguments(shards, tmp_path, "--optimizer", name))
    schedule = "constant" if name == "schedulefree" else "cosine"
    assert f"Optimise by {name}, peak rate {lr:g} after 3 steps, then {schedule}\n" in stopped.err
    resume = ("--out", tmp_path, "--run", "r", "--resume")
    refusal = trainer(*resume, "--optimizer", "adamw")
    assert (
        refusal.code == 2
        and f"was started with --optimizer {name}, not --optimizer adamw; omit --optimizer" in refusal.err
    )
    assert trainer(*resume, "--lr", lr).code == 0
    run, whole = tmp_path / "r", tmp_path / "whole" / "r"
    assert events(run, "train", "val") == events(whole, "train", "val")
    for file in ("model.pth", "best.pth"):
        assert (run / file).read_bytes() == (whole / file).read_bytes()
    facts = json.loads((run / "plan.json").read_text())
    assert (facts["optimizer"], facts["schedule"], facts["lr"]) == (name, schedule, lr)
    damaged = torch.load(run / "state.pt", weights_only=True)
    damaged["optimizer"] = damaged["optimizer"] | {"counters": []}
    damaged["progress"] |= {"step": 7, "validated": False}
    torch.save(damaged, run / "state.pt")
    refusal = trainer(*resume)
    assert refusal.code == 2 and f"{run / 'state.pt'} is damaged or belongs to a different training" in refusal.err


def test_the_average_of_schedule_free_is_validated_and_written(shards: Path, tmp_path: Path) -> None:
    assert trainer(*arguments(shards, tmp_path, "--optimizer", "schedulefree")).code == 0
    run = tmp_path / "r"
    content, state = torch.load(run / "model.pth"), torch.load(run / "state.pt")
    for number, name in enumerate(content["params"]):
        y, x = content["params"][name], content["params_ema"][name]
        torch.testing.assert_close(y, 0.1 * state["optimizer"]["state"][number]["z"] + 0.9 * x, rtol=0, atol=1e-6)
    assert any(not torch.equal(one, content["params_ema"][name]) for name, one in content["params"].items())
    result = trainer("evaluate", "--weights", run / "model.pth", "--shards", shards / "scale_2x", "--json")
    evaluated, recorded = json.loads(result.out)["mean"]["network"], events(run, "val")[-1]
    assert recorded["psnr_y"] == pytest.approx(evaluated["psnr_y"], abs=1e-3)


@pytest.mark.slow
def test_two_processes_equal_one(shards: Path, tmp_path: Path) -> None:
    """Up to rounding, with an average of the weights and with augmentations."""
    options = ("--optimizer", "schedulefree", "--augment", "mixup:0.5", "--augment", "cutblur:0.5")
    args = arguments(shards, tmp_path, *options, "--amp", "off", "--lr", 2e-5)
    with ranks_of(2, tmp_path, *args, "--batch-size", 2) as ranks:
        codes, output = wait(ranks)
    assert codes == {0}, output
    assert trainer(*args, "--run", "one").code == 0
    one, two = (torch.load(tmp_path / run / "model.pth") for run in ("one", "r"))
    for kind in ("params", "params_ema"):
        assert all(torch.allclose(weight, two[kind][name], rtol=0, atol=1e-5) for name, weight in one[kind].items())


def test_a_run_of_an_earlier_version_keeps_adamw(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_step(monkeypatch, 5, terminate)
    assert trainer(*arguments(shards, tmp_path)).code == 143
    settings = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())
    del settings["optimizer"]
    (tmp_path / "r" / "config.yaml").write_text(yaml.dump(settings))
    resume = ("--out", tmp_path, "--run", "r", "--resume")
    refusal = trainer(*resume, "--optimizer", "adan")
    assert refusal.code == 2 and "was started with --optimizer adamw, not --optimizer adan" in refusal.err
    assert trainer(*resume).code == 0


# ---- refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--optimizer", "adam"),
            "'adam' is not one of 'adamw', 'adan', 'schedulefree', 'muon'. Did you mean 'adamw'?",
        ),
        (
            ("--optimizer", "schedulefree", "--schedule", "cosine"),
            "--schedule cosine: schedulefree averages the weights instead of lowering the rate; pass --schedule",
        ),
        (
            ("--optimizer", "schedulefree", "--ema", 0.999),
            "--ema 0.999: schedulefree averages the weights itself; pass --ema 0 or another --optimizer",
        ),
    ],
)
def test_contradictions_are_refused(options: tuple[object, ...], message: str, shards: Path, tmp_path: Path) -> None:
    result = trainer(*arguments(shards, tmp_path / "runs", *options))
    assert result.code == 2 and message in " ".join(result.err.split()), result.err
    assert "Traceback" not in result.err and not (tmp_path / "runs").exists()


def test_a_missing_package_is_reported(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    result = trainer(*arguments(shards, tmp_path / "runs", "--optimizer", "adan"))
    expected = "Error: --optimizer adan needs pytorch_optimizer; run `pip install 'sr-shards[optimizers]'` or"
    assert result.code == 2 and expected in result.err
    assert not (tmp_path / "runs").exists()
    assert trainer(*arguments(shards, tmp_path, "--steps", 1)).code == 0


@pytest.mark.parametrize("name", OTHERS)
def test_steps_of_other_optimisers_are_not_captured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.training.step_mode.find_spec", lambda _: object())
    gpu = torch.device("cuda")
    assert choose_step_mode("auto", gpu, 1, "compact", 10**6, name) == StepMode()
    assert choose_step_mode("compiled", gpu, 1, "compact", 1, name) == StepMode(compiles=True)
    for mode in ("graph", "compiled-graph"):
        with pytest.raises(UsageError, match=f"--step {mode} requires --optimizer adamw: {name} cannot be captured"):
            choose_step_mode(mode, gpu, 1, "compact", 1, name)
