"""Time of Real-ESRGAN's second-order degradation on the device, per batch.

Batches of HR crops are on the device already; `degradation.py` describes how they are degraded, each batch with new
random parameters. After a warm-up, batches are counted in timed windows; the host waits for the device at their ends
only. In one kind of window the blur kernels were drawn beforehand, in the other the measuring process draws them for
each batch. In training, data workers draw them, so the time lies between the two. Both windows of a round start with
the same seed, since batches differ in cost.

Nothing else uses the device here, whereas in training a network does: the times of both add up, or nearly so.
"""

from collections.abc import Callable, Iterator
from itertools import cycle
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import in_rounds
from benchmarks.gpu.degradation import FIRST, KERNEL_PX, Degradation
from benchmarks.gpu.window import synchronise
from benchmarks.plan_million import peak_rss_bytes
from benchmarks.report import spread
from benchmarks.stream_measure import repeat
from trainer.training.device import choose_device, limit_threads

_ROUNDS = 3
_WARM_UP_S, _WARM_UP_BATCHES = 1.0, 10  # on a GPU: libraries are loaded, and memory is allocated for most sizes
_SETS = 16  # of kernels for the windows that do not draw any
_PROFILED = 10
_SEED = 0
_CASES = _PREPARED, _DRAWN = "prepared", "drawn"


def measure_degradation(
    batch: int, patch: int, scale: int, crop: int, device: str, seconds: float, count_launches: bool
) -> Iterator[dict[str, Any]]:
    """Measure batches of `batch` pairs of `patch` HR px, from crops of `crop` px, in windows of `seconds` each.

    Yields ms per batch and patches per second as spreads over the windows, each with prepared (`prepared`) and with
    drawn kernels (`drawn`); `draw_ms`, the time to draw the kernels alone; `batches`, the number in each window;
    kernels launched on the device per batch, or why they are not known, if `count_launches`, which uses the profiler;
    and peak bytes (on a CPU: of the process so far).

    ValueError unless patch and crop are multiples of `scale`, the patch fits into the crop, and the blur kernels fit
    into all reduced images.
    """
    _check_sizes(patch, scale, crop)
    limit_threads()
    on = choose_device(device)
    hr = _hr_crops(on, batch, crop)
    drawing = Degradation(on, patch, scale, _SEED)
    sets = [drawing.draw_kernels(batch) for _ in range(_SETS)]

    def step_of(name: str, seed: int) -> Callable[[], object]:
        degrade, prepared = Degradation(on, patch, scale, seed), cycle(sets)
        if name == _PREPARED:
            return lambda: degrade(hr, next(prepared))
        return lambda: degrade(hr, degrade.draw_kernels(batch))

    def window(step: Callable[[], object], at_least: int, at_least_s: float) -> tuple[int, float]:
        """Return the number of batches, and ms per batch."""
        synchronise(on)
        start_s = perf_counter()
        number, _ = repeat(step, at_least, at_least_s, float("inf"))
        synchronise(on)
        return number, 1e3 * (perf_counter() - start_s) / number

    on_gpu = on.type == "cuda"
    window(step_of(_DRAWN, _SEED), *((_WARM_UP_BATCHES, _WARM_UP_S) if on_gpu else (1, 0.0)))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(on)
    ms: dict[str, list[float]] = {name: [] for name in _CASES}
    batches: dict[str, list[int]] = {name: [] for name in _CASES}
    for number, name in in_rounds(_CASES, _ROUNDS):
        count, each_ms = window(step_of(name, number), 1, seconds)
        ms[name].append(each_ms)
        batches[name].append(count)
    peak = torch.cuda.max_memory_allocated(on) if on_gpu else peak_rss_bytes()
    yield {
        "batch": batch,
        "patch_px": patch,
        "scale": scale,
        "crop_px": crop,
        "ms_per_batch": {name: spread(values, 3) for name, values in ms.items()},
        "patches_per_second": {name: spread([1e3 * batch / each for each in values], 1) for name, values in ms.items()},
        "draw_ms": round(_draw_ms(drawing, batch), 3),
        "batches": batches,
        **({"launches": _launches(step_of(_PREPARED, _SEED), on)} if count_launches else {}),
        "peak_memory_bytes": peak,
    }


def _check_sizes(patch: int, scale: int, crop: int) -> None:
    if patch % scale or not scale <= patch <= crop or crop % scale:
        raise ValueError(f"patch {patch} and crop {crop}: expected multiples of {scale} px, the patch within the crop")
    smallest = min(int(FIRST.factor[0] * crop), crop // scale)
    if smallest <= KERNEL_PX // 2:
        raise ValueError(f"crop {crop}: images of {smallest} px are too small for kernels of {KERNEL_PX} px")


def _hr_crops(device: torch.device, count: int, edge: int) -> torch.Tensor:
    """Return count x 3 x edge x edge uint8: smooth random images of all grey levels."""
    coarse = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(_SEED))
    smooth = functional.interpolate(coarse, size=(edge, edge), mode="bicubic").clamp(0, 1)
    return (255 * smooth).round().to(torch.uint8).to(device)


def _draw_ms(degrade: Degradation, count: int) -> float:
    """Return the median time to draw the kernels of a batch."""

    def once() -> float:
        start_s = perf_counter()
        degrade.draw_kernels(count)
        return 1e3 * (perf_counter() - start_s)

    return median(once() for _ in range(_SETS))


def _launches(step: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Return kernels, copies and fills on the device per batch, and their ms; or why they are not known."""
    if device.type != "cuda":
        return {"unavailable": "no CUDA device"}
    try:
        for _ in range(2):  # the first pass loads the profiler and may miss events
            with profile(activities=[ProfilerActivity.CUDA]) as profiler:
                for _ in range(_PROFILED):
                    step()
                synchronise(device)
        events = [event for event in profiler.events() or () if event.device_type == DeviceType.CUDA]
    except Exception as error:  # whatever the profiler raises must not discard the rates measured before
        return {"unavailable": f"the profiler failed ({error})"}
    if not events:
        return {"unavailable": "the profiler saw no kernels"}
    busy_us = sum(event.time_range.elapsed_us() for event in events)
    return {"per_batch": len(events) / _PROFILED, "ms_per_batch": round(busy_us / 1e3 / _PROFILED, 3)}
