"""The tasks of bench_scale. Each runs in a fresh process and prints its figures as JSON.

    python -m benchmarks.scale_tasks TASK ARGUMENTS

Times are CPU seconds of this process without imports. Single steps are too short for that clock: for them, wall time
and the median count. Memory is in bytes.
"""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import psutil

from benchmarks.plan_million import peak_rss_bytes
from benchmarks.plan_million import run as plan
from benchmarks.scale_folders import SCALE, config_for, markers, synthetic_plans
from shardgen.generate.inventory import take_inventory
from shardgen.generate.manifest import build_manifest
from srshards.format import MANIFEST_NAME, dump_json, load_manifest

BATCH = 16
SAMPLES_PER_SHARD = 1_000  # of the schedule: 10^9 samples are then as many shards as a folder can have
SHARD_BYTES = 256_000_000  # seven in a block
_STEPS = 4_000  # about nine blocks
_LATE_EPOCH = 1_000
_SHARDS_OF_LARGE_BLOCK = 8

Figures = dict[str, float]


def inventory(output: Path, count: int) -> Figures:
    """Measure the generator's inventory of finished shards and the construction of the manifest."""
    plans, config = synthetic_plans(count), config_for(output)
    start_s = process_time()
    (found,) = take_inventory(plans, config)
    inventory_s = process_time() - start_s
    assert len(found.kept) == count and not found.to_build
    start_s = process_time()
    content = dump_json(build_manifest(found.kept, config, SCALE))
    return {"inventory_s": inventory_s, "manifest_s": process_time() - start_s, "manifest_bytes": len(content)}


def manifest(count: int) -> Figures:
    """Measure the size of the manifest alone, for more shards than there are files."""
    plans, config = synthetic_plans(count), config_for(Path("shards"))
    made = {plan.name: marker for plan, marker in zip(plans, markers(plans, config), strict=True)}
    return {"manifest_bytes": len(dump_json(build_manifest(made, config, SCALE)))}


def start(folder: Path, pickled: Path) -> Figures:
    """Measure the trainer up to the first batch's sample numbers; write the data sent to a worker to `pickled`."""
    from srshards.shards.opening import open_shards
    from trainer.training.checks import checked_plan
    from trainer.training.config import TrainConfig

    before = _rss_bytes()
    start_s = process_time()
    load_manifest(folder)
    manifest_s, start_s = process_time() - start_s, process_time()
    shards = open_shards(folder)
    open_s, plan_s = process_time() - start_s, process_time()
    planned = checked_plan(TrainConfig(shards=folder, workers=0, device="cpu", batch_size=BATCH), shards)
    plan_s, numbers_s = process_time() - plan_s, process_time()
    reader = planned.loader._sources.reader  # what is sent to workers
    reader.schedule.batch(0)
    numbers_s = process_time() - numbers_s
    held = _rss_bytes() - before
    start_s = process_time()
    content = pickle.dumps(reader)
    pickle_s = process_time() - start_s
    pickled.write_bytes(content)
    return {
        "manifest_bytes": (folder / MANIFEST_NAME).stat().st_size,
        "manifest_s": manifest_s,
        "open_s": open_s,
        "plan_s": plan_s,
        "numbers_s": numbers_s,
        "first_s": open_s + plan_s + numbers_s,
        "held_bytes": held,
        "peak_bytes": peak_rss_bytes() - before,
        "pickle_s": pickle_s,
        "pickle_bytes": len(content),
    }


def worker(pickled: Path) -> Figures:
    """Measure a data worker up to the crops of the first batch: unpickling the trainer's data, and memory."""
    from srshards.loader import chunk_worker as loader  # noqa: F401, as in the fork server

    before, start_s = _rss_bytes(), process_time()
    reader = pickle.loads(pickled.read_bytes())
    reader.drawn(range(1), range(BATCH)).specs()
    return {
        "worker_s": process_time() - start_s,
        "worker_held_bytes": _rss_bytes() - before,
        "worker_peak_bytes": peak_rss_bytes() - before,
        "worker_before_bytes": before,
    }


def schedule(samples: int) -> Figures:
    """Measure the schedule alone: construction, the first step of an epoch, and steps in the middle of one."""
    from srshards.sampling.schedule import Schedule

    shards = max(1, samples // SAMPLES_PER_SHARD)
    sizes = [samples // shards] * shards, [SHARD_BYTES] * shards
    start_s = process_time()
    order = Schedule(*sizes, 0, BATCH)
    made_s = process_time() - start_s
    figures = {"shards": shards, "made_s": made_s}
    for name, epoch in (("first", 0), ("late", _LATE_EPOCH)):
        start = epoch * samples // BATCH + 1  # completely in the epoch
        start_s = process_time()
        order.batch(start)
        figures[f"{name}_epoch_s"] = process_time() - start_s
        middle = start + samples // BATCH // 2
        start_s = process_time()
        steps = [_timed(order.batch, step) for step in range(middle, middle + min(_STEPS, samples // BATCH // 2 - 1))]
        figures[f"{name}_mean_step_us"] = (process_time() - start_s) / len(steps) * 1e6
        figures[f"{name}_step_us"] = median(steps) * 1e6
    return figures


def block(samples: int) -> Figures:
    """Measure the first batch of a block of `samples` samples in eight shards, which permutes all of them."""
    from srshards.sampling.schedule import Schedule

    order = Schedule(
        [samples // _SHARDS_OF_LARGE_BLOCK] * _SHARDS_OF_LARGE_BLOCK, [1] * _SHARDS_OF_LARGE_BLOCK, 0, BATCH
    )
    before, start_s = _rss_bytes(), process_time()
    order.batch(0)
    return {"block_s": process_time() - start_s, "block_bytes": peak_rss_bytes() - before}


def _timed(function: Callable[[int], object], argument: int) -> float:
    start_s = perf_counter()
    function(argument)
    return perf_counter() - start_s


def _rss_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "plan": lambda count: plan(int(count)),
    "inventory": lambda output, count: inventory(Path(output), int(count)),
    "manifest": lambda count: manifest(int(count)),
    "start": lambda folder, pickled: start(Path(folder), Path(pickled)),
    "worker": lambda pickled: worker(Path(pickled)),
    "schedule": lambda samples: schedule(int(samples)),
    "block": lambda samples: block(int(samples)),
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
