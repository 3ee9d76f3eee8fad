"""Kernel time of a training step on the device, compared with the time of its arithmetic alone.

The floor is the number of operations of the convolutions, forward and backward (three times the forward pass), at the
rate of one large matrix product in the precision of the forward pass. Kernels take longer because of everything that is
not a convolution, and because convolutions do not reach that rate; a step takes longer than its kernels when the device
waits for the next one.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.window import synchronise
from trainer.models import NetworkSpec
from trainer.models.cost import training_cost
from trainer.training.device import Precision

NO_CUDA = "no CUDA device"
_STEPS = 5
_LARGEST = 15
_MATRIX = {"cuda": 8192, "cpu": 2048}


def measure_kernels(
    spec: NetworkSpec,
    batch: int,
    input_patch: int,
    precision: Precision,
    step: Callable[[], object],
    device: torch.device,
) -> dict[str, Any]:
    """Return floor and kernel time of a step in ms, and the most expensive kernels; or why they are unknown.

    Also the operations per step, and the rate of the matrix product in TFLOP/s.
    """
    if device.type != "cuda":
        return {"unavailable": NO_CUDA}
    flops = flops_per_step(spec, batch, input_patch)
    rate = matrix_flops_per_s(device, precision.dtype or torch.float32)
    found: dict[str, Any] = {
        "flops_per_step": flops,
        "matrix_tflops_per_s": round(rate / 1e12, 1),
        "floor_ms": round(1000 * flops / rate, 3),
    }
    try:
        seconds, counts = _kernel_seconds(step, device)
    except Exception as error:  # whatever the profiler raises must not discard the rates measured before
        return {**found, "unavailable": f"the profiler failed ({error})"}
    if not seconds:
        return {**found, "unavailable": "the profiler saw no kernels"}
    largest = [
        {"name": name[:120], "seconds_per_step": each / _STEPS, "per_step": counts[name] / _STEPS}
        for name, each in sorted(seconds.items(), key=lambda item: -item[1])[:_LARGEST]
    ]
    return {
        **found,
        "kernel_ms": round(1000 * sum(seconds.values()) / _STEPS, 3),
        "kernels_per_step": sum(counts.values()) / _STEPS,
        "largest": largest,
    }


def flops_per_step(spec: NetworkSpec, batch: int, input_patch: int) -> float:
    """Return the operations of a step: those of the forward pass, and twice as many for the backward pass."""
    return 3.0 * batch * training_cost(spec, batch, input_patch).forward_flops


def matrix_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Return the rate of ten products of square matrices. Random numbers, because zeros multiply faster."""
    size, count = _MATRIX[device.type], 10
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    synchronise(device)
    start_s = perf_counter()
    for _ in range(count):
        a @ b
    synchronise(device)
    return 2.0 * size**3 * count / (perf_counter() - start_s)


def _kernel_seconds(step: Callable[[], object], device: torch.device) -> tuple[dict[str, float], Counter[str]]:
    """Return seconds on the device and number of calls in `_STEPS` steps, by name of kernel, copy or fill."""
    for _ in range(2):  # the first pass loads the profiler and may miss events
        synchronise(device)
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(_STEPS):
                step()
            synchronise(device)
    seconds: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for event in profiler.events() or ():
        # A range that a library annotates (an optimizer step) spans kernels but is not one.
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False):
            seconds[event.name] += event.time_range.elapsed_us() / 1e6
            counts[event.name] += 1
    return seconds, counts
