"""Duration of a training step, its share of waiting for data, and its distance from the device's arithmetic limit.

Method: each network is trained by the public command on shards of real photos, 4x, patches of 192 px, batches of 16, in
a fresh process; all networks once per round. The figures are those that the run writes to its journal, without the
first fifth of the steps. The floor is the arithmetic of the convolutions, forward and backward, at the rate of one
large matrix product in the same precision, measured before each run (gpu/kernels.py).

    python -m benchmarks.bench_train_step --photos DIR
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.common import RESULTS, PhotoSet, in_rounds, python_module, say, scratch_folder, timed_command
from benchmarks.gpu.kernels import flops_per_step, matrix_flops_per_s
from benchmarks.options import (
    OWN_NETWORKS,
    benchmark,
    output_option,
    photos_option,
    rounds_option,
    scratch_option,
    workers_option,
)
from benchmarks.report import print_table, spread, spread_text, verdict, write_result
from trainer.models import network_spec, num_parameters
from trainer.training.device import choose_device, choose_precision, describe_device, limit_threads

SCALE, PATCH_PX, BATCH = 4, 192, 16
_STEPS = {
    "cpu": {"ultra_lite": 200, "lite": 30, "standard": 5},
    "cuda": {"ultra_lite": 2000, "lite": 1000, "standard": 300},
}
_MAX_DATA_WAIT = 0.02


@dataclass(frozen=True)
class Measured:
    """One run. `data_wait` is a share of the time; `floor_s` the time for the convolutions of a step alone."""

    step_s: float
    data_wait: float
    floor_s: float


def measure(model: str, shards: Path, out: Path, workers: int, device: torch.device) -> Measured:
    """Train `model` for some steps and evaluate its journal."""
    steps = _STEPS[device.type][model]
    dtype = choose_precision("auto", device).dtype or torch.float32
    rate = matrix_flops_per_s(device, dtype)
    flops = flops_per_step(network_spec(model, SCALE), BATCH, PATCH_PX // SCALE)
    sizes = (
        "--patch-size",
        PATCH_PX,
        "--batch-size",
        BATCH,
        "--steps",
        steps,
        "--val-every",
        steps,
        "--val-samples",
        1,
    )
    where = ("--out", out, "--run", model, "--workers", workers, "--device", device)
    timed_command(python_module("trainer", "--shards", shards, "--model", model, *sizes, *where))
    lines = [json.loads(line) for line in (out / model / "journal.jsonl").read_text().splitlines()]
    laps = [line for line in lines if line["event"] == "train" and line["step"] > steps / 5]
    seconds = sum(lap["seconds"] for lap in laps)
    patches = sum(lap["seconds"] * lap["patches_per_s"] for lap in laps)
    waited = sum(lap["seconds"] * lap["data_wait"] for lap in laps)
    return Measured(seconds / patches * BATCH, waited / seconds, flops / rate)


def summarise(model: str, runs: list[Measured]) -> dict[str, Any]:
    wait = spread([run.data_wait for run in runs], 4)
    return {
        "parameters": num_parameters(network_spec(model, SCALE).build()),
        "step_seconds": spread([run.step_s for run in runs], 4),
        "patches_per_second": spread([BATCH / run.step_s for run in runs], 1),
        "data_wait": {**wait, "met": wait["median"] < _MAX_DATA_WAIT},
        "floor_over_step": spread([run.floor_s / run.step_s for run in runs], 3),
    }


@benchmark
@photos_option
@rounds_option(3, "Number of trainings of each network.")
@workers_option("Data workers.")
@click.option("--device", default="auto", help="cpu, cuda, or auto.")
@scratch_option("Folder for temporary files.")
@output_option(None)
def main(
    photos: Path | None, rounds: int, workers: int, device: str, scratch: Path | None, output: Path | None
) -> None:
    """Measure the training step of every network.

    \b
    Example:
      python -m benchmarks.bench_train_step --photos photos --rounds 1 --workers 2
    """
    photo_set = PhotoSet.of(photos)
    torch_device = choose_device(device)
    limit_threads()
    runs: dict[str, list[Measured]] = {model: [] for model in OWN_NETWORKS}
    with scratch_folder(scratch) as folder:
        timed_command(python_module("shardgen", "generate", "-i", photo_set.root, "-o", folder, "-s", SCALE, "--auto"))
        for number, model in in_rounds(OWN_NETWORKS, rounds):
            out = folder / f"round{number}"
            runs[model].append(measure(model, folder / f"scale_{SCALE}x", out, workers, torch_device))
            say(f"round {number + 1}/{rounds}  {model}: {BATCH / runs[model][-1].step_s:.1f} patches/s")
        networks = {model: summarise(model, runs[model]) for model in OWN_NETWORKS}
        command = f"python -m benchmarks.bench_train_step --photos DIR --rounds {rounds} --workers {workers}"
        settings = {"scale": SCALE, "patch_px": PATCH_PX, "batch": BATCH, "rounds": rounds, "workers": workers}
        device_info = {"name": describe_device(torch_device), "precision": str(choose_precision("auto", torch_device))}
        content = {"photos": photo_set.describe(), "settings": settings, "device": device_info, "networks": networks}
        write_result(output or RESULTS / f"train_step_{torch_device.type}.json", command, folder, content)
    columns = ("network", "step, s", "patches/s", "waiting for data", "of the floor")
    print_table(f"4x, batches of {BATCH}, {device_info['name']}, {device_info['precision']}", columns, _rows(networks))


def _rows(networks: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = []
    for model, found in networks.items():
        rate, wait = found["patches_per_second"], found["data_wait"]
        rows.append(
            [
                model,
                f"{found['step_seconds']['median']:.3f}",
                spread_text(rate, 1),
                f"{wait['median']:.2%} {verdict(wait['met'])}",
                f"{found['floor_over_step']['median']:.2f}",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
