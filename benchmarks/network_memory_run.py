"""Train a network for a few steps on noise; print the increase of the peak memory as one line of JSON.

python -m benchmarks.network_memory_run MODEL BATCH cpu|cuda off|bf16
"""

import json
import os
import sys
from itertools import repeat
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer does, before PyTorch is imported

import torch

from benchmarks.cpu_step_run import SCALE, noise
from srshards import PatchBatch
from srshards.process.allocator import keep_freed_memory
from trainer.losses.pixel import l1
from trainer.models import Network, NetworkSpec, network_spec
from trainer.training.device import choose_precision, limit_threads
from trainer.training.learner import Learner, StepSettings
from trainer.training.step_mode import StepMode

_STEPS = 2  # the second one allocates gradients while nothing of the first is kept but the optimiser's state


def train(spec: NetworkSpec, batch: PatchBatch, device: torch.device, amp: str) -> None:
    """Train `spec` from scratch on one repeated batch, with EMA and clipping."""
    network, ema_network = (_on(device, spec) for _ in range(2))
    settings = StepSettings(_STEPS, 1e-4, 0, l1, choose_precision(amp, device), 1, 1.0, 0.999, StepMode())
    learner = Learner(network, ema_network, settings)
    for number in range(_STEPS):
        learner.step(number, repeat(batch)).item()


def _on(device: torch.device, spec: NetworkSpec) -> Network:
    return spec.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _noise(batch_size: int, device: torch.device) -> PatchBatch:
    hr, lr, _ = noise(batch_size)
    return PatchBatch(hr.to(device), lr.to(device), ())


def main(model: str, batch_size: int, device: torch.device, amp: str) -> None:
    """Measure after two steps of the smallest network, which load PyTorch's libraries."""
    limit_threads()
    if device.type == "cpu":
        keep_freed_memory()
    train(network_spec("ultra_lite", SCALE), _noise(1, device), device, amp)
    batch = _noise(batch_size, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present size
        before = _status("VmRSS")
    train(network_spec(model, SCALE), batch, device, amp)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")
    print(json.dumps({"bytes": peak - before}), flush=True)


def _status(key: str) -> int:
    """Return a size from the process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), torch.device(sys.argv[3]), sys.argv[4])
