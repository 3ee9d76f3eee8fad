"""The parts of the benchmark, the most valuable first, with their time limits and tasks.

The limits are the budget. They add up to less than eight minutes on a machine with an H100 and 16 CPU cores, so some
measurements are shortened or omitted:

- `compile` runs in the background of the tests, because compiling `standard` takes two minutes, mostly on the CPU. The
  other parts then find the code in PyTorch's cache on the disk. The tests time nothing, so neither disturbs the other.
- Runs whose wall clock is divided take 45 s (`lite`) and half of that (`ultra_lite`).
- Every `--step` is measured with batches of the first size. Other sizes omit `compiled`; `standard` is not compiled for
  them.
- The fastest step of each network and size is also fed from shards and from resident samples.
- All tasks share a process, and are measured in three short windows. Those that use PyTorch's profiler come last,
  because it may slow down what the process does afterwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.gpu.rates import RESIDENT, STREAM
from benchmarks.gpu.task import Task
from trainer.models import network_spec

TOTAL_S = 480.0
START_S = 12.0  # of importing PyTorch, writing PNG pairs and describing the device
DATA_LIMIT_S, VARIANTS_LIMIT_S = 15.0, 10.0  # of generating shards, before the first part

TESTS, COMPILE, ACCOUNT, RATES = "tests", "compile", "account", "rates"
PLAIN, LOADER, DEGRADATION, KERNELS = "plain", "loader", "degradation", "kernels"

_ACCOUNT_SHARES = {"lite": 1.0, "ultra_lite": 1 / 2}  # of `train_seconds`
_PLAIN_MODEL = "standard"
_WORKERS = (2, 4, 8, 14)
_COPIED_BYTES = {"cuda": 1 << 28, "cpu": 1 << 22}
_CROP_PX = 400  # as published


@dataclass(frozen=True)
class Settings:
    """What all tasks have in common. `seconds` is the length of a window, `patch` in HR px.

    `shards` is a folder of one scale, `variants` another one with several LR images per sample, if there is any,
    `pairs` the folder of PNG files for the plain loop. `train_seconds` is the length of the run of `lite`.
    """

    device: str
    models: tuple[str, ...]
    batches: tuple[int, ...]
    patch: int
    scale: int
    workers: int
    seconds: float
    train_seconds: float
    shards: str
    variants: str | None
    pairs: str
    scratch: str

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")


class Part(NamedTuple):
    """A part of the benchmark. `tasks` is None for the tests, which pytest runs."""

    name: str
    limit_s: float
    tasks: Callable[[Settings], list[Task]] | None


def steps_of(model: str, batch: int, settings: Settings) -> Sequence[str]:
    """Return the values of `--step` to measure, the fastest first."""
    if not settings.on_gpu:
        return ("eager",)
    if batch == settings.batches[0]:
        return ("compiled-graph", "graph", "eager", "compiled")
    return ("compiled-graph", "graph", "eager") if _compiles_fast(model) else ("graph", "eager")


def _compiles_fast(model: str) -> bool:
    return network_spec(model, 4).architecture == "compact"


def _compile_tasks(settings: Settings) -> list[Task]:
    """One task per network, because each has a process of its own. Those of `standard` are the longest."""
    tasks = []
    for model in settings.models:
        batches = [batch for batch in settings.batches if "compiled-graph" in steps_of(model, batch, settings)]
        args = {"model": model, "batches": batches, "patch": settings.patch, "shards": settings.shards}
        if batches:
            tasks.append(Task("benchmarks.gpu.rates:compile_step", model, 146, {**args, "device": settings.device}))
    return tasks


def _account_tasks(settings: Settings) -> list[Task]:
    tasks = []
    for model, share in _ACCOUNT_SHARES.items():
        seconds = share * settings.train_seconds
        args = {"model": model, "seconds": seconds, "batch": settings.batches[0], "patch": settings.patch}
        args |= {"shards": settings.shards, "device": settings.device, "workers": settings.workers}
        if model in settings.models:
            tasks.append(
                Task(
                    "benchmarks.gpu.account:measure_account", model, seconds + 60, {**args, "scratch": settings.scratch}
                )
            )
    return tasks


def _rate_tasks(settings: Settings) -> list[Task]:
    """The fastest step of all networks and sizes, then the next one, and so on."""
    cases = [
        (number, model, batch, step)
        for batch in settings.batches
        for model in settings.models
        for number, step in enumerate(steps_of(model, batch, settings))
    ]
    common = {"patch": settings.patch, "shards": settings.shards, "device": settings.device}
    common |= {"workers": settings.workers, "seconds": settings.seconds}
    tasks = []
    for number, model, batch, step in sorted(cases, key=lambda case: case[0]):
        args = {"model": model, "batch": batch, "step": step, "sources": [] if number else [STREAM, RESIDENT], **common}
        limit_s = 60 if step.startswith("compiled") else 30
        tasks.append(Task("benchmarks.gpu.rates:measure_rates", f"{model}, {batch}, {step}", limit_s, args))
    return tasks


def _plain_tasks(settings: Settings) -> list[Task]:
    """`standard`, or the last network without it."""
    model = _PLAIN_MODEL if _PLAIN_MODEL in settings.models else settings.models[-1]
    args = {"model": model, "batch": settings.batches[0], "patch": settings.patch, "shards": settings.shards}
    args |= {"pairs": settings.pairs, "device": settings.device, "workers": settings.workers}
    return [
        Task(
            "benchmarks.gpu.plain_loop:measure_plain",
            f"{model}, {settings.batches[0]}",
            20,
            {**args, "seconds": settings.seconds},
        )
    ]


def _loader_tasks(settings: Settings) -> list[Task]:
    num_bytes = _COPIED_BYTES["cuda" if settings.on_gpu else "cpu"]
    tasks = [
        Task("benchmarks.gpu.feed:measure_copies", "copies", 10, {"device": settings.device, "num_bytes": num_bytes})
    ]
    args = {"batch": settings.batches[-1], "patch": settings.patch, "device": settings.device}
    args |= {"seconds": settings.seconds}
    counts = [count for count in _WORKERS if count <= settings.workers] or [settings.workers]
    for workers in reversed(counts):
        tasks.append(
            Task(
                "benchmarks.gpu.feed:measure_loader",
                str(workers),
                10,
                {**args, "shards": settings.shards, "workers": workers},
            )
        )
    if settings.variants:
        args |= {"shards": settings.variants, "workers": counts[-1]}
        tasks.insert(2, Task("benchmarks.gpu.feed:measure_loader", f"{counts[-1]}, variants", 10, args))
    return tasks


def _degradation_tasks(settings: Settings) -> list[Task]:
    crop = _CROP_PX if settings.on_gpu else max(96, settings.patch)
    args = {"patch": settings.patch, "scale": settings.scale, "crop": crop, "device": settings.device}
    args |= {"seconds": settings.seconds}
    return [
        Task(
            "benchmarks.gpu.degrade:measure_degradation",
            str(batch),
            15,
            {"batch": batch, **args, "count_launches": batch == settings.batches[-1]},
        )
        for batch in settings.batches
    ]


def _kernel_tasks(settings: Settings) -> list[Task]:
    """Kernels of the fastest steps; the time may not suffice for the last."""
    tasks = []
    for batch in settings.batches:
        for model in settings.models:
            step = steps_of(model, batch, settings)[0]
            args = {"model": model, "batch": batch, "step": step, "patch": settings.patch}
            args |= {"shards": settings.shards, "device": settings.device}
            tasks.append(Task("benchmarks.gpu.rates:measure_step_kernels", f"{model}, {batch}, {step}", 30, args))
    return tasks


PARTS = (
    Part(TESTS, 160, None),
    Part(COMPILE, 165, _compile_tasks),  # begins with the tests
    Part(ACCOUNT, 82, _account_tasks),
    Part(RATES, 120, _rate_tasks),
    Part(PLAIN, 13, _plain_tasks),
    Part(LOADER, 18, _loader_tasks),
    Part(DEGRADATION, 11, _degradation_tasks),
    Part(KERNELS, 26, _kernel_tasks),
)
