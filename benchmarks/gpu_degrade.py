"""Time of Real-ESRGAN's second-order degradation on the device, per batch.

Batches of HR crops are on the device already; `gpu_degradation.py` describes how they are degraded, each batch with new
random parameters. After a warm-up, batches are counted in timed windows; the host waits for the device at their ends
only. In one kind of window the blur kernels were drawn beforehand, in the other the measuring process draws them for
each batch. In training, data workers draw them, so the time lies between the two. Both windows of a round start with
the same seed, since batches differ in cost.

    python -m benchmarks.gpu_degrade --device cuda --batches 16 --batches 64

Nothing else uses the device here, whereas in training a network does: the times of both add up, or nearly so.
"""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import click
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import in_rounds, say
from benchmarks.gpu_degradation import FIRST, KERNEL_PX, Degradation
from benchmarks.gpu_window import synchronise
from benchmarks.options import benchmark
from benchmarks.plan_million import peak_rss_bytes
from benchmarks.report import print_table, spread, spread_text, write_result
from benchmarks.stream_measure import repeat
from srshards.errors import UsageError
from trainer.training.device import choose_device, describe_device, limit_threads

CROP_PX = 400  # as published
_ROUNDS = 3
_WARM_UP_S, _WARM_UP_BATCHES = 1.0, 10  # on a GPU: libraries are loaded, and memory is allocated for most sizes
_SETS = 16  # of kernels for the windows that do not draw any
_PROFILED = 10
_SEED = 0
_CASES = _PREPARED, _DRAWN = "prepared", "drawn"


def measure_degradation(
    device: torch.device, batch_size: int, patch: int, scale: int, seconds: float, crop: int = CROP_PX
) -> dict[str, Any]:
    """Measure batches of `batch_size` pairs of `patch` HR px, from crops of `crop` px, in windows of `seconds` each.

    Returns ms per batch and patches per second as spreads over the windows, each with prepared (`prepared`) and with
    drawn kernels (`drawn`); `draw_ms`, the time to draw the kernels alone; `batches`, the number in each window;
    kernels launched on the device per batch, or why they are not known; and peak bytes (on a CPU: of the
    process so far).

    ValueError unless patch and crop are multiples of `scale`, the patch fits into the crop, and the blur kernels fit
    into all reduced images.
    """
    _check_sizes(patch, scale, crop)
    hr = _hr_crops(device, batch_size, crop)
    drawing = Degradation(device, patch, scale, _SEED)
    sets = [drawing.draw_kernels(batch_size) for _ in range(_SETS)]

    def step_of(name: str, seed: int) -> Callable[[], object]:
        degrade, prepared = Degradation(device, patch, scale, seed), cycle(sets)
        if name == _PREPARED:
            return lambda: degrade(hr, next(prepared))
        return lambda: degrade(hr, degrade.draw_kernels(batch_size))

    def window(step: Callable[[], object], at_least: int, at_least_s: float) -> tuple[int, float]:
        """Return the number of batches, and ms per batch."""
        synchronise(device)
        start_s = perf_counter()
        number, _ = repeat(step, at_least, at_least_s, float("inf"))
        synchronise(device)
        return number, 1e3 * (perf_counter() - start_s) / number

    on_gpu = device.type == "cuda"
    window(step_of(_DRAWN, _SEED), *((_WARM_UP_BATCHES, _WARM_UP_S) if on_gpu else (1, 0.0)))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    ms: dict[str, list[float]] = {name: [] for name in _CASES}
    batches: dict[str, list[int]] = {name: [] for name in _CASES}
    for number, name in in_rounds(_CASES, _ROUNDS):
        count, each_ms = window(step_of(name, number), 1, seconds)
        ms[name].append(each_ms)
        batches[name].append(count)
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else peak_rss_bytes()
    return {
        "batch": batch_size,
        "patch_px": patch,
        "scale": scale,
        "crop_px": crop,
        "ms_per_batch": {name: spread(values, 3) for name, values in ms.items()},
        "patches_per_second": {
            name: spread([1e3 * batch_size / each for each in values], 1) for name, values in ms.items()
        },
        "draw_ms": round(_draw_ms(drawing, batch_size), 3),
        "batches": batches,
        "launches": _launches(step_of(_PREPARED, _SEED), device),
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


@benchmark
@click.option("--batches", type=click.IntRange(min=1), multiple=True, default=(16, 64), help="Batch sizes; repeatable.")
@click.option("--patch", type=click.IntRange(min=1), default=192, help="Edge of a patch in HR px.")
@click.option("--scale", type=click.IntRange(min=1), default=4, help="HR px per LQ px.")
@click.option("--crop", type=click.IntRange(min=1), default=CROP_PX, help="Edge of the degraded HR crops in px.")
@click.option("--seconds", type=click.FloatRange(min=0.01), default=0.5, help="Seconds of each of the six windows.")
@click.option("--device", default="cuda", help="cuda, cuda:N, or cpu to try the benchmark.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write the result as JSON.")
def main(
    batches: tuple[int, ...], patch: int, scale: int, crop: int, seconds: float, device: str, output: Path | None
) -> None:
    """Measure the time of the second-order degradation on a GPU.

    \b
    Example:
      python -m benchmarks.gpu_degrade --device cuda --batches 16 --batches 64
    """
    try:
        on = choose_device(device)
        _check_sizes(patch, scale, crop)
    except (UsageError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    if on.type not in ("cuda", "cpu"):
        raise click.UsageError(f"--device {device}: expected cuda, cuda:N or cpu")
    limit_threads()
    found = []
    for batch in batches:
        say(f"batches of {batch}")
        found.append(measure_degradation(on, batch, patch, scale, seconds, crop))
    if output:
        content = {"device": describe_device(on), "seconds": seconds, "batches": found}
        command = " ".join(["python -m benchmarks.gpu_degrade", *(f"--batches {batch}" for batch in batches)])
        options = f"--patch {patch} --scale {scale} --crop {crop} --seconds {seconds:g} --device {device}"
        write_result(output, f"{command} {options}", output.resolve().parent, content)
    columns = ("batch", "ms", "with drawing", "drawing alone", "patches/s", "with drawing", "launches", "GB")
    title = f"{describe_device(on)}: crops of {crop} px to pairs of {patch} and {patch // scale} px"
    print_table(title, columns, [_row(each) for each in found])


def _row(found: dict[str, Any]) -> list[str]:
    ms = [spread_text(found["ms_per_batch"][name], 2) for name in _CASES]
    rates = [f"{found['patches_per_second'][name]['median']:,.0f}" for name in _CASES]
    launches = found["launches"]
    number = f"{launches['per_batch']:.0f}" if "per_batch" in launches else launches["unavailable"]
    memory = f"{found['peak_memory_bytes'] / 1e9:.2f}"
    return [str(found["batch"]), *ms, f"{found['draw_ms']:.2f}", *rates, number, memory]


if __name__ == "__main__":
    main()
