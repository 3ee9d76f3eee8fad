"""What only a GPU can show: copies that overlap with computing, precisions, CUDA graphs, compiled steps.

`make gpu` runs these tests; other machines skip them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import srshards
from srshards import PatchBatch, PatchLoader
from srshards.loader.resident import ResidentImages
from srshards.loader.to_device import Transfer
from trainer.evaluation.evaluate import evaluate_batches, evaluate_pairs
from trainer.evaluation.pairs import shard_pairs
from trainer.evaluation.transfer import download
from trainer.inference.image_function import as_function
from trainer.loss_terms import LossTerm
from trainer.models import network_spec
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig
from trainer.training.device_queue import DeviceQueue
from trainer.training.learner import Learner
from trainer.training.run import make_learner
from trainer.training.snapshot import Snapshot

PATCH, BATCH = 64, 4
SLEEP_CYCLES = 3_000_000  # one to two ms
RELATIVE_BOUNDS = {"off": 2e-3, "bf16": 2e-2, "fp16": 2e-2}  # of losses; convolutions of float32 use TF32


def make(shards: Path, **settings: Any) -> tuple[Learner, PatchLoader]:
    """Return a learner and its loader."""
    config = TrainConfig(shards=shards, **{"steps": 100, "batch_size": BATCH, "patch_size": PATCH, **settings})
    plan = checked_plan(config, srshards.open(shards))
    return make_learner(plan), plan.loader


def losses(shards: Path, steps: int, **settings: Any) -> list[float]:
    """Return the losses of the first steps."""
    return columns(shards, steps, **settings)[:, 0].tolist()


def columns(shards: Path, steps: int, **settings: Any) -> torch.Tensor:
    """Return a row for each of the first steps: all that a step reports."""
    learner, loader = make(shards, workers=2, **settings)
    with loader:
        batches = loader.steps(0, 100)
        return torch.stack([learner.step(step, batches).cpu() for step in range(steps)])


def run_trainer(*args: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *launcher, "trainer", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


# ---- batches


@pytest.mark.parametrize("network_input", ["lr", "up"])
def test_batches_are_intact_when_copies_lag_behind(
    network_input: Any, gpu_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every slot of the ring is written again many times while its copy still waits on the device."""
    send = Transfer.send

    def late(self: Transfer, host: Any) -> Any:
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                torch.cuda._sleep(SLEEP_CYCLES)
        return send(self, host)

    monkeypatch.setattr(Transfer, "send", late)
    shards = srshards.open(gpu_shards)

    def batches(**settings: Any) -> Iterator[PatchBatch]:
        with PatchLoader(shards, PATCH, BATCH, input=network_input, prefetch=2, **settings) as loader:
            yield from loader.steps(0, 200)

    expected = [(batch.hr.clone(), batch.input.clone()) for batch in batches(workers=0)]
    streamed = list(batches(workers=4, device="cuda"))  # nothing waits for the device before the last one is taken
    resident = list(batches(resident=True, device="cuda"))
    for taken in (streamed, resident):
        assert len(taken) == len(expected)
        for batch, (hr, small) in zip(taken, expected, strict=True):
            assert batch.hr.is_cuda and torch.equal(batch.hr.cpu(), hr) and torch.equal(batch.input.cpu(), small)


def test_batches_of_a_closed_loader_stay_valid(gpu_shards: Path) -> None:
    with PatchLoader(srshards.open(gpu_shards), PATCH, BATCH, workers=1, device="cuda:0") as loader:
        batch = next(iter(loader))
    with PatchLoader(srshards.open(gpu_shards), PATCH, BATCH, workers=0) as loader:
        assert torch.equal(batch.hr.cpu(), next(iter(loader)).hr)


def test_resident_patches_beyond_two_gigabytes() -> None:
    """PyTorch then indexes with 64 bits, although positions have 32."""
    images = torch.randint(0, 256, (11_000, 256, 256, 3), dtype=torch.uint8, device="cuda")
    resident = ResidentImages(images, 4, 192)
    numbers = np.array([0, 5_000, 10_999])
    corners = resident.corners(numbers, np.array([[16] * 3, [16] * 3, [0] * 3]))
    assert corners.dtype == torch.int32
    assert torch.equal(resident.gather(corners.cuda()), images[torch.from_numpy(numbers).cuda(), 64:, 64:])


# ---- steps


@pytest.fixture(scope="module")
def cpu_losses(gpu_shards: Path) -> list[float]:
    return losses(gpu_shards, 20, model="ultra_lite", device="cpu", amp="off")


# Resident batches reach a compiled step like any other, so they are combined with one precision only.
@pytest.mark.parametrize(
    ("step", "amp", "resident"),
    [
        *((step, amp, False) for step in ("eager", "graph", "compiled", "compiled-graph") for amp in RELATIVE_BOUNDS),
        *((step, amp, True) for step in ("eager", "graph") for amp in RELATIVE_BOUNDS),
        ("compiled-graph", "bf16", True),
    ],
)
def test_losses_are_those_of_the_cpu(
    step: str, amp: str, resident: bool, gpu_shards: Path, cpu_losses: list[float]
) -> None:
    found = losses(gpu_shards, 20, model="ultra_lite", device="cuda", amp=amp, step=step, resident=resident)
    assert found == pytest.approx(cpu_losses, rel=RELATIVE_BOUNDS[amp])


def test_losses_of_the_large_network_are_those_of_the_cpu(gpu_shards: Path) -> None:
    settings = {"model": "standard", "amp": "off", "patch_size": 32, "resident": True}
    expected = losses(gpu_shards, 5, device="cpu", **settings)
    for step in ("eager", "graph"):
        assert losses(gpu_shards, 5, device="cuda", step=step, **settings) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    "settings", [{"grad_accum": 3}, {"ema": 0}, {"clip": 0}, {"input": "up", "patch_size": 32}, {"sharpen_hr": True}]
)
def test_captured_steps_equal_eager_ones(settings: dict[str, Any], gpu_shards: Path) -> None:
    eager, captured = (
        losses(gpu_shards, 12, model="lite", device="cuda", step=step, **settings) for step in ("eager", "graph")
    )
    assert captured == pytest.approx(eager, rel=1e-3)


@pytest.mark.parametrize(
    ("gan", "discriminator", "amp"),
    [
        *(("vanilla", "unet", amp) for amp in RELATIVE_BOUNDS),
        ("relativistic", "patchgan", "bf16"),
        ("hinge", "dunet", "bf16"),
    ],
)
def test_captured_steps_with_a_discriminator_equal_eager_ones(
    gan: str, discriminator: str, amp: str, gpu_shards: Path
) -> None:
    """Of several losses, of which one starts during the run: the step is then captured again."""
    settings = {
        "model": "ultra_lite",
        "loss": (LossTerm("l1"), LossTerm("fft", 0.1, start=8)),
        "gan": LossTerm(gan, 0.1),
        "discriminator": discriminator,
        "grad_accum": 2,
        "sharpen_hr": True,
        "ema": 0.9,
        "amp": amp,
    }
    eager, captured = (columns(gpu_shards, 16, device="cuda", step=step, **settings) for step in ("eager", "graph"))
    torch.testing.assert_close(captured, eager, rtol=RELATIVE_BOUNDS[amp], atol=RELATIVE_BOUNDS[amp])


@pytest.mark.parametrize("model", ["span_s", "plksr_tiny", "realplksr_tiny", "mosr_t", "safmn", "omnisr"])
def test_captured_steps_of_spandrel_equal_eager_ones(model: str, gpu_shards: Path) -> None:
    """Those of all architectures that `auto` captures."""
    pytest.importorskip("spandrel")
    settings = {"model": model, "device": "cuda"}
    assert make(gpu_shards, **settings)[0].settings.mode.captures
    eager, captured = (losses(gpu_shards, 8, step=step, **settings) for step in ("eager", "auto"))
    assert captured == pytest.approx(eager, rel=2e-2)


def test_steps_that_cannot_be_captured_are_explained(gpu_shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    result = run_trainer("--shards", gpu_shards, "--out", tmp_path, "--model", "swinir_s", "--step", "graph")
    assert result.returncode == 2
    assert "the step cannot be captured (Cannot copy between CPU and CUDA tensors" in result.stderr
    assert result.stderr.rstrip().endswith("pass --step eager")


@pytest.mark.parametrize("step", ["eager", "graph", "compiled-graph"])
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_steps_never_wait_for_the_device(amp: str, step: str, gpu_shards: Path) -> None:
    learner, loader = make(gpu_shards, model="ultra_lite", device="cuda", amp=amp, step=step, workers=0)
    with loader:
        first = next(loader.steps(0, 100))
        batches = repeat(PatchBatch(first.hr, first.input, ()))
        for number in range(6):
            learner.step(number, batches)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for number in range(6, 16):
                learner.step(number, batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
@pytest.mark.parametrize(("before", "after"), [("eager", "graph"), ("graph", "eager"), ("graph", "graph")])
def test_training_resumes_in_another_mode(before: str, after: str, amp: str, gpu_shards: Path) -> None:
    expected = losses(gpu_shards, 16, model="lite", device="cuda", amp=amp, step=before)
    learner, loader = make(gpu_shards, model="lite", device="cuda", amp=amp, step=before, workers=2)
    with loader:
        batches = loader.steps(0, 100)
        for step in range(8):
            learner.step(step, batches)
        state = learner.state()
    learner, loader = make(gpu_shards, model="lite", device="cuda", amp=amp, step=after, workers=2)
    learner.restore(state)
    with loader:
        batches = loader.steps(8, 100)
        found = [learner.step(step, batches).item() for step in range(8, 16)]
    assert found == pytest.approx(expected[8:], rel=1e-3)


def test_ema_of_captured_steps(gpu_shards: Path) -> None:
    """Its decay changes at every step, which a graph that had recorded a number would miss."""
    averages = []
    for step in ("eager", "graph"):
        learner, loader = make(gpu_shards, model="ultra_lite", device="cuda", amp="off", step=step, workers=0)
        with loader:
            batches = loader.steps(0, 100)
            for number in range(12):
                learner.step(number, batches)
        averages.append([parameter.cpu() for parameter in learner.evaluation_network.parameters()])
    for eager, captured in zip(*averages, strict=True):
        torch.testing.assert_close(captured, eager, rtol=2e-3, atol=2e-4)


# ---- saves


@pytest.mark.parametrize("step", ["eager", "graph"])
def test_a_snapshot_is_the_state_after_the_queued_steps(step: str, gpu_shards: Path) -> None:
    """Steps before it may still be queued, and those after it change the original."""
    learner, loader = make(gpu_shards, model="lite", device="cuda", amp="fp16", step=step, workers=0)
    snapshot = Snapshot()
    with loader:
        batches = loader.steps(0, 100)
        for number in range(8):
            if number == 7:
                torch.cuda._sleep(SLEEP_CYCLES)
            learner.step(number, batches)
            taken = snapshot.take(learner.state())  # into the same memory every time
        expected = [parameter.cpu() for parameter in learner.network.parameters()]
        moments = [values["exp_avg"].cpu() for values in learner.state()["optimizer"]["state"].values()]
        for number in range(8, 12):
            learner.step(number, batches)
        torch.cuda.synchronize()
    assert all(tensor.is_pinned() for tensor in taken["params"].values())
    torch.testing.assert_close(list(taken["params"].values()), expected, rtol=0, atol=0)
    found = [values["exp_avg"] for values in taken["optimizer"]["state"].values()]
    torch.testing.assert_close(found, moments, rtol=0, atol=0)


def test_a_step_is_captured_while_a_save_is_written(gpu_shards: Path, tmp_path: Path) -> None:
    args = ("--shards", gpu_shards, "--out", tmp_path, "--run", "r", "--model", "standard", "--patch-size", PATCH)
    result = run_trainer(*args, "--batch-size", 1, "--steps", 8, "--save-every", 1, "--val-every", 8, "--step", "graph")
    assert result.returncode == 0, result.stderr


# ---- account


def test_the_queue_of_the_device_is_seen_without_waiting_for_it() -> None:
    queue = DeviceQueue(torch.device("cuda"))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(SLEEP_CYCLES)
        queue.mark()
        assert queue.is_busy()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert not queue.is_busy()


# ---- validation


def test_validations_never_wait_for_the_device(gpu_shards: Path) -> None:
    shards = srshards.open(gpu_shards)
    pairs = list(shard_pairs(shards, "train", upsampled=False, limit=20))
    network = network_spec("ultra_lite", 4).build(seed=1).to("cuda", memory_format=torch.channels_last).eval()
    for with_bicubic in (True, False):
        download([batch.network for batch in evaluate_batches(network, pairs)])  # loads kernels
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            batches = list(evaluate_batches(network, pairs, with_bicubic=with_bicubic))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert [len(batch.pairs) for batch in batches] == [16, 4]
        assert all(batch.network.is_cuda for batch in batches)


@pytest.mark.parametrize("upsampled", [False, True])
def test_validations_are_those_of_the_cpu(upsampled: bool, gpu_shards: Path) -> None:
    """Convolutions use TF32, which changes some pixels by a level; the metrics of equal pixels are equal."""
    pairs = list(shard_pairs(srshards.open(gpu_shards), "train", upsampled, limit=5))
    network = network_spec("lite", 1 if upsampled else 4).build(seed=1).eval()
    expected = list(evaluate_pairs(network, pairs))
    for tile in ("auto", 48):
        found = list(evaluate_pairs(network.to("cuda"), pairs, tile))
        for one, other in zip(found, expected, strict=True):
            assert one.network.psnr_y == pytest.approx(other.network.psnr_y, abs=0.01)
            assert one.network.ssim_y == pytest.approx(other.network.ssim_y, abs=1e-3)
            assert astuple(one.bicubic) == pytest.approx(astuple(other.bicubic), abs=1e-9)


# ---- commands


def test_trains_validates_and_resumes(gpu_shards: Path, tmp_path: Path) -> None:
    args = ("--shards", gpu_shards, "--out", tmp_path, "--run", "r", "--model", "ultra_lite", "--patch-size", PATCH)
    trained = run_trainer(*args, "--steps", 60, "--val-every", 30, "--workers", 2)
    assert trained.returncode == 0, trained.stderr
    assert "bfloat16 autocast, CUDA graph" in trained.stderr
    lines = [json.loads(line) for line in (tmp_path / "r" / "journal.jsonl").read_text().splitlines()]
    assert {"train", "val"} <= {line["event"] for line in lines}
    (tmp_path / "r" / "config.yaml").write_text(
        (tmp_path / "r" / "config.yaml").read_text().replace("steps: 60", "steps: 80").replace("amp: auto", "amp: fp16")
    )
    resumed = run_trainer("--out", tmp_path, "--run", "r", "--resume", "--step", "eager")
    assert resumed.returncode == 0, resumed.stderr
    assert "float16 autocast;" in resumed.stderr and "resumed at step 60" in resumed.stderr


def test_trains_under_torchrun(gpu_shards: Path, tmp_path: Path) -> None:
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "--")
    args = ("--shards", gpu_shards, "--out", tmp_path, "--model", "ultra_lite", "--patch-size", PATCH, "--steps", 8)
    result = run_trainer(*args, "--workers", 1, launcher=launcher)
    assert result.returncode == 0, result.stderr


def test_ddp_over_nccl(gpu_shards: Path) -> None:
    """A group of one process, because NCCL refuses two on one device."""
    script = """
import os, sys
from datetime import timedelta
import torch, torch.distributed as dist
from trainer.distributed.group import RankGroup
from trainer.distributed.rank import SINGLE_PROCESS
from trainer.loss_terms import LossTerm
from trainer.models import network_spec

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
group = RankGroup(SINGLE_PROCESS, dist.group.WORLD)
device = torch.device("cuda:0")
torch.cuda.set_device(device)
ddp = group.wrap_ddp(network_spec("lite", 4).build().to(device, memory_format=torch.channels_last), device)
images = torch.rand(4, 3, 16, 16, device=device).to(memory_format=torch.channels_last)
ddp(images).mean().backward()
print(sum(parameter.grad.abs().sum().item() for parameter in ddp.parameters()), flush=True)
os._exit(0)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) > 0


def test_out_of_memory_is_explained(gpu_shards: Path, tmp_path: Path) -> None:
    args = ("--shards", gpu_shards, "--out", tmp_path, "--model", "standard", "--patch-size", 256, "--resident")
    result = run_trainer(*args, "--batch-size", 4000, "--steps", 2, "--step", "eager")
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert "out of memory in step 1 on cuda" in result.stderr and "--batch-size 2000" in result.stderr
    assert os.listdir(tmp_path) == []


def test_missing_devices_are_named(gpu_shards: Path, tmp_path: Path) -> None:
    result = run_trainer("--shards", gpu_shards, "--out", tmp_path, "--device", "cuda:99", "--steps", 1)
    assert result.returncode == 2 and "--device cuda:99: this machine has" in result.stderr


def test_upscaled_photos_are_those_of_the_cpu() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    network = network_spec("lite", 4).build(seed=1).eval()
    expected = as_function(network, torch.device("cpu"))(photo).astype(int)
    device = torch.device("cuda")
    network = network.to(device)
    whole, tiled = (as_function(network, device, tile)(photo).astype(int) for tile in (None, 48))
    assert np.abs(whole - expected).max() <= 1 and np.abs(tiled - expected).max() <= 1
