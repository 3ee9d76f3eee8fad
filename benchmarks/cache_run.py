"""Time a training, or its batches alone; print one line of JSON.

python -m benchmarks.cache_run TASK_JSON
"""

import json
import sys
from dataclasses import asdict, dataclass
from time import perf_counter

from srshards.loader import sources
from srshards.sampling import schedule
from srshards.shards.opening import open_shards
from srshards.storage.store import parse_address
from trainer.training.checks import checked_plan
from trainer.training.config import TrainConfig
from trainer.training.device import limit_threads
from trainer.training.run import make_learner


@dataclass(frozen=True)
class Task:
    """`epochs` of batches, with or without training steps. `cache` is empty for shards in a folder."""

    shards: str
    cache: str = ""
    epochs: int = 2
    block_bytes: int | None = None
    network: bool = True
    decoded: bool = False
    fetch_ahead: bool = True
    patches_per_sample: int = 1
    workers: int = 1
    batch: int = 16

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def main(task_json: str) -> None:
    """Print as JSON: seconds to the first batch, patches per epoch, and per epoch its seconds and those of waiting."""
    limit_threads()
    task = Task(**json.loads(task_json))
    address = parse_address(task.shards)
    folder = open_shards(address, cache=task.cache or None, decode=task.decoded)
    config = TrainConfig(
        address,
        model="ultra_lite",
        epochs=task.epochs * task.patches_per_sample,  # that many are interleaved, and read each sample once
        batch_size=task.batch,
        workers=task.workers,
        prefetch=2,
        patches_per_sample=task.patches_per_sample,
        device="cpu",
    )
    schedule.BLOCK_BYTES = task.block_bytes or schedule.BLOCK_BYTES
    if not task.fetch_ahead:
        setattr(sources, "PrefetchedBatches", lambda source, *others: source)  # noqa: B010, mypy sees no such export
    plan = checked_plan(config, folder)
    learner = make_learner(plan) if task.network else None
    start_s = perf_counter()
    batches = plan.loader.steps(0, plan.total_steps)
    first_s = perf_counter() - start_s
    steps = plan.total_steps // task.epochs
    epochs = []
    for epoch in range(task.epochs):
        start_s, waited_s = perf_counter(), plan.loader.wait_s
        for step in range(epoch * steps, (epoch + 1) * steps):
            if learner:
                learner.step(step, batches).item()
            else:
                next(batches)
        epochs.append({"seconds": perf_counter() - start_s, "wait_s": plan.loader.wait_s - waited_s})
    print(json.dumps({"first_batch_s": first_s, "patches": steps * task.batch, "epochs": epochs}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
