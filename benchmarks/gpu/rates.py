"""The trainer's step, fed in three ways: one repeated batch, batches from shards, batches of resident samples.

Settings are the trainer's defaults, but for `--step`. One batch repeated needs no data, so it is the ceiling. Measured
is the work between two log lines of a run, without validation.
"""

from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu.kernels import measure_kernels
from benchmarks.gpu.window import Timed, Window, measure_steps, synchronise, window_for
from srshards import PatchBatch, PatchLoader
from srshards.loader.worker_pool import WORKER_MODULE
from srshards.process.fork_server import GROUP_SIGNALS, start_fork_server
from srshards.shards.opening import open_shards
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig
from trainer.training.device import limit_threads, make_current
from trainer.training.learner import Learner
from trainer.training.plan import Plan
from trainer.training.run import make_learner

ONE_BATCH, STREAM, RESIDENT = "one batch", "stream", "resident"
_ENDLESS_STEPS = 1_000_000
_CHECKED_STEPS = 10
_RESERVED_BYTES = 8 << 30


def measure_rates(
    model: str,
    batch: int,
    step: str,
    sources: list[str],
    patch: int,
    shards: str,
    device: str,
    workers: int,
    seconds: float,
) -> Iterator[dict[str, Any]]:
    """Yield the figures of one network, batch size and `--step`.

    `start_up_s` is the time of the first steps, which compile, tune and capture; `synchronisation` is PyTorch's message
    if one of ten steps waits for the device, None if none does; `host_ms` is the time for which a step occupies the
    training process while the device is idle. Then follow the rates by source, with the share of the time that
    the trainer itself counts as waiting for data, as in a run's journal (`data_wait`), and of all the time that the
    training process spends on taking batches (`taking_batches`).
    """
    settings = {"model": model, "batch_size": batch, "patch_size": patch, "shards": Path(shards), "device": device}
    plan = _plan(**settings, step=step, workers=0)
    training, start_up_s = _started(plan)
    on = plan.device
    yield {"precision": str(plan.precision), "step_mode": str(plan.step_mode), "start_up_s": round(start_up_s, 1)}
    if on.type == "cuda":
        yield {"synchronisation": _synchronisation(training.step)}
    yield {ONE_BATCH: training.measure(batch, window_for(on, seconds, 0))}
    yield {"host_ms": round(1000 * _host_s(training.step, on), 3)}
    for source in sources:
        fed = _plan(**settings, step=step, workers=workers, resident=source == RESIDENT)
        with fed.loader:
            training.feed(fed.loader.steps(0, _ENDLESS_STEPS), fed.loader)
            ready = _ready_batches(fed.loader, batch, patch, patch // plan.folder.scale) if source == STREAM else 0
            yield {source: training.measure(batch, window_for(on, seconds, ready))}


def measure_step_kernels(
    model: str, batch: int, step: str, patch: int, shards: str, device: str
) -> Iterator[dict[str, Any]]:
    """Yield the kernels of a step with one repeated batch."""
    plan = _plan(
        model=model, batch_size=batch, patch_size=patch, shards=Path(shards), device=device, step=step, workers=0
    )
    training, _ = _started(plan)
    small_patch = patch // plan.folder.scale
    yield measure_kernels(plan.spec, batch, small_patch, plan.precision, training.step, plan.device)


def compile_step(model: str, batches: list[int], patch: int, shards: str, device: str) -> Iterator[dict[str, Any]]:
    """Compile the step for each batch size, so that PyTorch's cache on the disk has the code. Yield the seconds."""
    if torch.device(device).type == "cuda":
        # PyTorch keeps this memory for the process. One of the tests, which run at the same time, takes all memory.
        torch.empty(_RESERVED_BYTES, dtype=torch.uint8, device=device)
    mode = "compiled-graph" if torch.device(device).type == "cuda" else "compiled"
    for batch in batches:
        plan = _plan(
            model=model,
            batch_size=batch,
            patch_size=patch,
            shards=Path(shards),
            device=device,
            step=mode,
            workers=0,
        )
        yield {str(batch): round(_started(plan)[1], 1)}


class _Training:
    """A learner and the batches that it takes."""

    def __init__(self, learner: Learner, batches: Iterator[PatchBatch]) -> None:
        self._learner = learner
        self._steps = iter(range(_ENDLESS_STEPS))
        self._batches = Timed(batches)
        self._loader: PatchLoader | None = None

    def feed(self, batches: Iterator[PatchBatch], loader: PatchLoader) -> None:
        """Take other batches from now on."""
        self._batches, self._loader = Timed(batches), loader

    def step(self) -> torch.Tensor:
        """Perform a step and return its loss."""
        return self._learner.step(next(self._steps), self._batches)

    def measure(self, batch: int, window: Window) -> dict[str, Any]:
        """Measure steps on the current batches."""
        batches, loader = self._batches, self._loader
        shares: dict[str, Callable[[], float]] = {"taking_batches": lambda: batches.seconds}
        if loader:
            shares["data_wait"] = lambda: loader.wait_s
        return measure_steps(self.step, batch, window, self._learner.device, shares)


def _started(plan: Plan) -> tuple[_Training, float]:
    """Return a training on one repeated batch after its first steps, and their seconds."""
    # As in trainer.training.run.train. Workers are then forked from a process that has imported what they need.
    limit_threads()
    torch.backends.cudnn.benchmark = True
    start_fork_server(WORKER_MODULE, GROUP_SIGNALS)
    make_current(plan.device)
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(plan.device)
    with plan.loader:
        first = next(plan.loader.steps(0, 1))
        copy = PatchBatch(first.hr.clone(), first.input.clone(), ())
    learner = make_learner(plan)
    training = _Training(learner, repeat(copy))
    start_s = perf_counter()
    for _ in range(learner.start_up_steps):
        training.step()
    synchronise(plan.device)
    return training, perf_counter() - start_s


def _plan(**settings: Any) -> Plan:
    config = TrainConfig(steps=_ENDLESS_STEPS, **settings)
    return checked_plan(config, open_shards(config.shards))


def _synchronisation(step: Callable[[], object]) -> str | None:
    """Return PyTorch's message if one of some steps waits for the device, None if none does."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(_CHECKED_STEPS):
            step()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def _host_s(step: Callable[[], object], device: torch.device) -> float:
    """Return the median time until a step returns when the device is idle."""

    def once() -> float:
        synchronise(device)
        start_s = perf_counter()
        step()
        return perf_counter() - start_s

    return median(once() for _ in range(_CHECKED_STEPS if device.type == "cuda" else 1))


def _ready_batches(loader: PatchLoader, batch: int, patch: int, small_patch: int) -> int:
    """Return how many batches may be ready in the ring when the first window begins."""
    return loader.memory_bytes // (3 * batch * (patch**2 + small_patch**2))
