"""What the device really does in a step: the time of all kernels, and what the arithmetic alone would take.

The floor is the convolutions' operations, forward and backward (three times the forward pass), at the rate of one large
matrix product in the precision of the forward pass. Kernels take longer by what is not a convolution, and by what the
convolutions do not reach of that rate; a step takes longer than its kernels when the device waits for the next one.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_window import synchronise
from trainer.models import NetworkSpec
from trainer.training.device import Precision

NO_CUDA = "no CUDA device"
_STEPS = 5
_LARGEST = 15
_MATRIX = {"cuda": 8192, "cpu": 512}


def measure_kernels(
    spec: NetworkSpec,
    batch: int,
    input_patch: int,
    precision: Precision,
    step: Callable[[], object],
    device: torch.device,
) -> dict[str, Any]:
    """Operations per step, the matrix product's rate, and seconds of all kernels of a step; or why there are none."""
    found: dict[str, Any] = {
        "flops_per_step": flops_per_step(spec, batch, input_patch),
        "matrix_flops_per_s": matrix_flops_per_s(device, precision.dtype or torch.float32),
    }
    if device.type != "cuda":
        return {**found, "unavailable": NO_CUDA}
    try:
        seconds, counts = _kernel_seconds(step, device)
    except Exception as error:  # whatever profilers raise: the rates before it are not to be lost
        return {**found, "unavailable": f"the profiler failed ({error})"}
    if not seconds:
        return {**found, "unavailable": "the profiler saw no kernels"}
    largest = [
        {"name": name[:120], "seconds_per_step": each / _STEPS, "per_step": counts[name] / _STEPS}
        for name, each in sorted(seconds.items(), key=lambda item: -item[1])[:_LARGEST]
    ]
    return {
        **found,
        "kernel_s": sum(seconds.values()) / _STEPS,
        "kernels_per_step": sum(counts.values()) / _STEPS,
        "largest": largest,
    }


def flops_per_step(spec: NetworkSpec, batch: int, input_patch: int) -> float:
    """Operations of the convolutions of a step, a multiplication and an addition being two."""
    with torch.device("meta"):
        images = torch.empty(batch, 3, input_patch, input_patch)
    network = spec.build().to("meta")
    with FlopCounterMode(display=False) as counter:
        network(images)
    return 3.0 * float(counter.get_total_flops())


def matrix_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """The rate of ten products of square matrices in a row, of random numbers: zeros are multiplied faster."""
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
    """By the name of the kernel, copy or filling: seconds on the device, and how often, in some steps."""
    for _ in range(2):  # the first time, the profiler itself is being loaded, and may miss something
        synchronise(device)
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(_STEPS):
                step()
            synchronise(device)
    seconds: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for event in profiler.events() or ():
        # What a library marks as a stretch of its own (an optimiser's step) spans kernels, and is none.
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False):
            seconds[event.name] += event.time_range.elapsed_us() / 1e6
            counts[event.name] += 1
    return seconds, counts
