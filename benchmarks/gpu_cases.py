"""The trainer's step fed in three ways: by streaming, from resident samples, and with one repeated batch.

Settings are the trainer's defaults, but for `--step`. Measured is the work between two log lines of a run, without
validation. One batch repeated needs no data, so it is the ceiling.
"""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu_kernels import measure_kernels
from benchmarks.gpu_task import RESIDENT, STEP_OF_CASE, STREAM, WITH_ONE_BATCH, Task
from benchmarks.gpu_window import Timed, measure_steps, synchronise, window_for
from srshards import PatchBatch
from srshards.shards.opening import open_shards
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig
from trainer.training.device import limit_threads
from trainer.training.plan import Plan
from trainer.training.run import make_learner

_ENDLESS_STEPS = 1_000_000


def measure_ours(task: Task) -> dict[str, Any]:
    """Return steps, seconds, seconds of waiting, peak memory; with one batch also the time of its kernels.

    `start_up_s` is the time of the first steps, which compile, tune and capture.

    `wait_s` is what the trainer itself counts, as in a run's journal; `taking_s` is all the time that the training
    process spends on taking batches.
    """
    limit_threads()
    torch.backends.cudnn.benchmark = True  # as in trainer.training.run.train
    plan = _plan(task)
    learner = make_learner(plan)
    taken = plan.loader.steps(0, plan.total_steps)
    batches = Timed(_repeated(taken) if task.case in WITH_ONE_BATCH else taken)
    steps = iter(range(_ENDLESS_STEPS))

    def step() -> torch.Tensor:
        return learner.step(next(steps), batches)

    start_s = perf_counter()
    for _ in range(learner.start_up_steps):
        step()
    synchronise(plan.device)
    start_up_s = perf_counter() - start_s
    accounts = {"wait_s": lambda: plan.loader.wait_s, "taking_s": lambda: batches.seconds}
    window = window_for(plan.device, task.seconds, _ready(plan, task) if task.case == STREAM else 0)
    found = {
        "precision": str(plan.precision),
        "step_mode": str(plan.step_mode),
        "start_up_s": start_up_s,
        **measure_steps(step, window, plan.device, accounts),
    }
    if task.case in WITH_ONE_BATCH:
        found["kernels"] = measure_kernels(
            plan.spec, task.batch, task.patch // plan.folder.scale, plan.precision, step, plan.device
        )
    return found


def _plan(task: Task) -> Plan:
    config = TrainConfig(
        shards=Path(task.shards),
        model=task.model,
        steps=_ENDLESS_STEPS,
        batch_size=task.batch,
        patch_size=task.patch,
        workers=0 if task.case in WITH_ONE_BATCH else task.workers,
        resident=task.case == RESIDENT,
        device=task.device,
        step=STEP_OF_CASE[task.case] if task.device != "cpu" else "eager",
    )
    return checked_plan(config, open_shards(config.shards))


def _repeated(batches: Iterator[PatchBatch]) -> Iterator[PatchBatch]:
    """Yield a copy of the first batch forever."""
    first = next(batches)
    return repeat(PatchBatch(first.hr.clone(), first.input.clone(), ()))


def _ready(plan: Plan, task: Task) -> int:
    """Return how many batches may be ready in the ring when the window begins."""
    num_bytes = 3 * task.batch * (task.patch**2 + (task.patch // plan.folder.scale) ** 2)
    return plan.loader.memory_bytes // num_bytes
