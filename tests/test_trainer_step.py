"""How a step is executed: the choice of the mode, compiled steps, precisions. What needs a GPU is in tests/gpu."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import trainer

from srshards.errors import UsageError
from srshards.process.shortages import is_out_of_memory
from trainer.loss_terms import LossTerm
from trainer.models import network_spec
from trainer.models.blocks import BuiltInSpec, upsample_nearest
from trainer.training import learner, plan, run
from trainer.training.device import Precision
from trainer.training.learner import Learner, StepSettings
from trainer.training.objective import Objective
from trainer.training.optim import AdamW
from trainer.training.sharpen import Sharpen
from trainer.training.step_loss import loss_function
from trainer.training.step_mode import StepMode, choose_step_mode

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALL_RRDB = BuiltInSpec("rrdb", 4, 8, 1, 4)


@pytest.mark.parametrize(
    ("name", "device", "ranks", "architecture", "steps", "expected"),
    [
        ("auto", CPU, 1, "compact", 10**6, "eager"),
        ("auto", GPU, 1, "compact", 19_999, "CUDA graph"),
        ("auto", GPU, 1, "compact", 20_000, "compiled, CUDA graph"),
        ("auto", GPU, 1, "rrdb", 4_000, "compiled, CUDA graph"),
        ("auto", GPU, 2, "rrdb", 10**6, "eager"),
        ("graph", GPU, 1, "SPAN", 1, "CUDA graph"),
        ("eager", GPU, 1, "rrdb", 10**6, "eager"),
        ("graph", GPU, 1, "rrdb", 10**6, "CUDA graph"),
        ("auto", GPU, 1, "SPAN", 10**6, "CUDA graph"),
        ("auto", GPU, 1, "SwinIR", 10**6, "eager"),
        ("compiled", CPU, 1, "compact", 1, "compiled"),
        ("compiled", GPU, 2, "compact", 1, "compiled"),
        ("compiled-graph", GPU, 1, "compact", 1, "compiled, CUDA graph"),
    ],
)
def test_mode_follows_device_ranks_and_steps(
    name: str,
    device: torch.device,
    ranks: int,
    architecture: str,
    steps: int,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainer.training.step_mode.find_spec", lambda _: object())
    assert str(choose_step_mode(name, device, ranks, architecture, steps)) == expected


def test_auto_does_not_compile_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.training.step_mode.find_spec", lambda _: None)
    assert choose_step_mode("auto", GPU, 1, "compact", 10**6) == StepMode(captures=True)


@pytest.mark.parametrize("name", ["graph", "compiled-graph"])
def test_graphs_are_refused_where_they_are_impossible(name: str) -> None:
    with pytest.raises(
        UsageError, match=f"--step {name} requires a CUDA device, but the device is cpu; pass --step auto"
    ):
        choose_step_mode(name, CPU, 1, "compact", 1)
    with pytest.raises(UsageError, match=f"--step {name} is limited to a single process, but there are 4"):
        choose_step_mode(name, GPU, 4, "compact", 1)


# ---- the step


def settings(dtype: torch.dtype | None, compiles: bool = False, sharpen: Sharpen | None = None) -> StepSettings:
    mode = StepMode(compiles=compiles)
    return StepSettings(
        10, 1e-3, 0, Objective([LossTerm("l1")]), Precision(dtype), 1, 1.0, 0.999, mode, sharpen=sharpen
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "dtype", "sharpen"),
    [
        (network_spec("ultra_lite", 4), None, None),
        (network_spec("ultra_lite", 4), torch.bfloat16, None),
        (network_spec("ultra_lite", 4), torch.bfloat16, Sharpen(32)),
        (network_spec("lite", 4), torch.bfloat16, None),
        (replace(network_spec("standard", 4), depth=1), None, None),  # of 23 equal blocks
        (replace(network_spec("standard", 4), depth=1), torch.bfloat16, None),
    ],
    ids=str,
)
def test_compiled_loss_and_gradients_equal_eager_ones(
    spec: BuiltInSpec, dtype: torch.dtype | None, sharpen: Sharpen | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced once, as one graph, and differentiated by the compiler, which then runs PyTorch's own kernels."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    network = spec.build(1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    draw = partial(torch.randint, 0, 256, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    eager, compiled = (
        loss_function(network, None, Objective([LossTerm("l1")]), Precision(dtype), sharpen, compiles)
        for compiles in (False, True)
    )
    for _ in range(2):
        hr, lr = draw((2, 32, 32, 3)), draw((2, 8, 8, 3))
        results = []
        for function in (eager, compiled):
            network.zero_grad()
            loss, _, _ = function(hr, lr, (0,))
            loss.backward()
            results.append([loss.detach(), *(parameter.grad for parameter in network.parameters())])
        for expected, found in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=2e-2 if dtype else 1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_any_number_of_changes_of_the_active_losses_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    objective = Objective([LossTerm("l1"), LossTerm("charbonnier")])
    hr, lr = torch.zeros(1, 32, 32, 3, dtype=torch.uint8), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    with torch._dynamo.config.patch(recompile_limit=1):
        compiled = loss_function(SMALL_RRDB.build(), None, objective, Precision(None), compiles=True)
        for active in ((0,), (0, 1), (1,)):
            loss, _, _ = compiled(hr, lr, active)
            assert loss.isfinite()


@pytest.mark.parametrize(("before", "after"), [(None, torch.float16), (torch.float16, None), (torch.float16,) * 2])
def test_state_is_restored_in_another_precision(before: torch.dtype | None, after: torch.dtype | None) -> None:
    """A loss scaler has a state only in float16, which a device without bfloat16 uses."""

    def make(dtype: torch.dtype | None) -> Learner:
        return Learner(network_spec("ultra_lite", 2).build(), None, settings(dtype))

    state = make(before).state()
    if state["scaler"]:
        state["scaler"]["scale"] = 2.0**7
    restored = make(after)
    restored.restore(state)
    expected = {(None, torch.float16): 2.0**16, (torch.float16, None): None}.get((before, after), 2.0**7)
    assert restored.state()["scaler"].get("scale") == expected


def gradients_of(parameters: list[torch.nn.Parameter], seed: int) -> None:
    """Set random gradients."""
    for parameter in parameters:
        noise = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
        parameter.grad = torch.empty_like(parameter).copy_(noise)


def as_saved(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimiser's state as it is read from a file."""
    moments = {n: {name: value.clone() for name, value in one.items()} for n, one in state["state"].items()}
    return {**state, "state": moments}


def test_optimiser_equals_the_one_of_pytorch() -> None:
    """To the bit, also where one continues from the state of the other."""
    ours, theirs = (
        list(network_spec("ultra_lite", 2).build().to(memory_format=torch.channels_last).parameters())  # type: ignore[call-overload]
        for _ in range(2)
    )
    optimizer = AdamW(ours, 1.0)
    reference = torch.optim.AdamW(theirs, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    for step in range(9):
        if step == 3:  # exchange the states
            states = [as_saved(state) for state in (optimizer.state_dict(), reference.state_dict())]
            optimizer.load_state_dict(states[1])
            reference.load_state_dict(states[0])
        gradients_of(ours, step)
        gradients_of(theirs, step)
        optimizer.set_rate(1e-3 * (step + 1))
        reference.param_groups[0]["lr"] = 1e-3 * (step + 1)
        optimizer.step()
        reference.step()
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in ours)
        assert all(map(torch.equal, ours, theirs)), step
    states = [state["state"] for state in (optimizer.state_dict(), reference.state_dict())]
    for number, state in states[1].items():
        assert states[0][number].keys() == state.keys()
        assert all(torch.equal(states[0][number][name], value) for name, value in state.items())


def test_gradients_that_are_not_finite_are_skipped_in_half_precision() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamW([parameter], 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for gradient, steps, scale in ((float("inf"), 0, 2.0), (1.0, 1, 2.0)):
        scaler.scale((parameter * gradient).sum()).backward()
        scaler.step(optimizer)  # type: ignore[arg-type]
        scaler.update()
        optimizer.zero_grad()
        assert (optimizer.state_dict()["state"][0]["step"].item(), scaler.get_scale()) == (steps, scale)
    torch.testing.assert_close(parameter.detach(), torch.full((3,), 0.9))


def test_pixels_are_not_rounded_by_mixed_precision() -> None:
    images = torch.rand(1, 3, 8, 8)
    network = SMALL_RRDB.build()
    with torch.autocast("cpu", torch.bfloat16):
        assert network(images).dtype is torch.float32
        assert network.conv_hr(torch.rand(1, 8, 4, 4)).dtype is torch.bfloat16
        repeated = upsample_nearest(images.bfloat16(), 2)
    assert repeated.dtype is torch.bfloat16 and torch.equal(repeated[:, :, ::2, ::2], images.bfloat16())


@pytest.mark.parametrize(
    "message", ["cuDNN error: CUDNN_STATUS_ALLOCATION_FAILED", "FIND was unable to find an engine to execute this"]
)
def test_out_of_memory_of_cudnn_is_recognised(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


# ---- commands


def test_setting_of_earlier_versions_is_read(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []

    def choose(name: str, *args: Any) -> StepMode:
        chosen.append(name)
        return StepMode()

    monkeypatch.setattr(plan, "choose_step_mode", choose)
    (tmp_path / "old.yaml").write_text("compile: true\nsteps: 1\nbatch-size: 2\npatch-size: 16\nmodel: ultra_lite\n")
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, "--workers", 0, "--config", tmp_path / "old.yaml")
    assert trainer(*args).code == 0
    (tmp_path / "old.yaml").write_text((tmp_path / "old.yaml").read_text().replace("true", "false"))
    assert trainer(*args).code == 0
    assert trainer(*args, "--step", "eager").code == 0
    assert trainer(*args, "--compile").code == 0
    assert chosen == ["compiled", "auto", "eager", "compiled"]
    assert "step: eager" in (tmp_path / "ultra_lite-2x-3" / "config.yaml").read_text()


def test_failed_capture_is_explained(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(plan, "choose_step_mode", lambda *_: StepMode(captures=True))
    monkeypatch.setattr(learner, "Captured", lambda *_: None)
    monkeypatch.setattr(Learner, "step", fail)
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, "--workers", 0, "--steps", 1, "--patch-size", 16)
    result = trainer(*args)
    expected = "the step cannot be captured (CUDA error: operation not permitted when stream is capturing)"
    assert result.code == 2 and f"Error: {expected}; pass --step eager" in result.err
    monkeypatch.setattr(Learner, "step", lambda *_: torch.empty(2**60))
    assert "a CUDA graph needs memory of its own" in trainer(*args).err


def test_training_on_a_cpu_keeps_freed_memory(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(run, "keep_freed_memory", lambda: calls.append("kept"))
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, "--workers", 0, "--model", "ultra_lite")
    assert trainer(*args, "--steps", 1, "--batch-size", 2, "--patch-size", 16).code == 0
    assert calls == ["kept"]
