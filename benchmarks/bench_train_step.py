"""How long a training step takes, what of it is waiting for data, and how near it is to what the device can multiply.

Method: each network is trained by the public command on shards made of real photos, 4x, patches of 192 px, batches of
16, in a process of its own; all networks once per round. The figures are those that the run writes to its journal; the
first fifth of the steps does not count. The floor is the arithmetic of the convolutions, forward and backward (three
times the forward pass), at the rate of one large matrix product in the same precision, measured before each run.

    python -m benchmarks.bench_train_step --photos DIR
"""

import json
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import RESULTS, PhotoSet, RunFailedError, python_module, say, scratch_folder, timed_command
from benchmarks.options import photos_option, scratch_option
from benchmarks.report import print_table, spread, write_result
from srshards.process.resources import available_cpus
from srshards.terminal.help import Command
from trainer.models import MODELS, network_spec, num_parameters
from trainer.training.device import Precision, choose_device, choose_precision, describe_device, limit_threads

SCALE, PATCH_PX, BATCH = 4, 192, 16
_MATRIX = {"cpu": 2048, "cuda": 8192}
_STEPS = {
    "cpu": {"ultra_lite": 200, "lite": 30, "standard": 5},
    "cuda": {"ultra_lite": 2000, "lite": 1000, "standard": 300},
}
_MAX_DATA_WAIT = 0.02


@dataclass(frozen=True)
class Measured:
    """One run. `data_wait` is a share of the time; `floor_s` what the convolutions of a step would take alone."""

    step_s: float
    data_wait: float
    floor_s: float


def measure(model: str, shards: Path, out: Path, workers: int, device: torch.device) -> Measured:
    """Train `model` for some steps and read what it noted."""
    steps = _STEPS[device.type][model]
    precision = choose_precision("auto", device)
    rate = matrix_flops_per_s(device, precision)
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
    return Measured(seconds / patches * BATCH, waited / seconds, flops_per_step(model) / rate)


def flops_per_step(model: str) -> float:
    """Operations of the convolutions of a step, a multiplication and an addition being two."""
    with torch.device("meta"):
        images = torch.empty(BATCH, 3, PATCH_PX // SCALE, PATCH_PX // SCALE)
    network = network_spec(model, SCALE).build().to("meta")
    with FlopCounterMode(display=False) as counter:
        network(images)
    return 3.0 * float(counter.get_total_flops())


def matrix_flops_per_s(device: torch.device, precision: Precision) -> float:
    """The best of some products of two square matrices, in the precision that convolutions are trained in."""
    size = _MATRIX[device.type]
    a, b = (torch.ones(size, size, device=device, dtype=precision.dtype or torch.float32) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start_s = perf_counter()
        float((a @ b)[0, 0])  # asking for a value waits for the GPU
        best = min(best, perf_counter() - start_s)
    return 2.0 * size**3 / best


def summarise(model: str, runs: list[Measured]) -> dict[str, Any]:
    wait = spread([run.data_wait for run in runs], 4)
    return {
        "parameters": num_parameters(network_spec(model, SCALE).build()),
        "step_seconds": spread([run.step_s for run in runs], 4),
        "patches_per_second": spread([BATCH / run.step_s for run in runs], 1),
        "data_wait": {**wait, "met": wait["median"] < _MAX_DATA_WAIT},
        "floor_over_step": spread([run.floor_s / run.step_s for run in runs], 3),
    }


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@photos_option
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="How often each network is trained.")
@click.option("--workers", type=click.IntRange(min=0), default=available_cpus, help="Data workers.")
@click.option("--device", default="auto", help="cpu, cuda, or auto.")
@scratch_option("Where to write.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The result.  [default: in results/]"
)
def main(
    photos: Path | None, rounds: int, workers: int, device: str, scratch: Path | None, output: Path | None
) -> None:
    """Measure the training step of all networks.

    \b
    Example:
      python -m benchmarks.bench_train_step --photos photos --rounds 1 --workers 2
    """
    photo_set = PhotoSet.of(photos)
    on = choose_device(device)
    limit_threads()
    runs: dict[str, list[Measured]] = {model: [] for model in MODELS}
    try:
        with scratch_folder(scratch) as folder:
            timed_command(
                python_module("shardgen", "generate", "-i", photo_set.root, "-o", folder, "-s", SCALE, "--auto")
            )
            for number in range(rounds):
                for model in MODELS:
                    out = folder / f"round{number}"
                    runs[model].append(measure(model, folder / f"scale_{SCALE}x", out, workers, on))
                    say(f"round {number + 1}/{rounds}  {model}: {BATCH / runs[model][-1].step_s:.1f} patches/s")
            networks = {model: summarise(model, runs[model]) for model in MODELS}
            command = f"python -m benchmarks.bench_train_step --photos DIR --rounds {rounds} --workers {workers}"
            settings = {"scale": SCALE, "patch_px": PATCH_PX, "batch": BATCH, "rounds": rounds, "workers": workers}
            on_what = {"name": describe_device(on), "precision": str(choose_precision("auto", on))}
            content = {"photos": photo_set.describe(), "settings": settings, "device": on_what, "networks": networks}
            write_result(output or RESULTS / f"train_step_{on.type}.json", command, folder, content)
    except RunFailedError as error:
        raise click.ClickException(str(error)) from error
    columns = ("network", "step, s", "patches/s", "waiting for data", "of the floor")
    print_table(f"4x, batches of {BATCH}, {on_what['name']}, {on_what['precision']}", columns, _rows(networks))


def _rows(networks: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = []
    for model, found in networks.items():
        rate, wait = found["patches_per_second"], found["data_wait"]
        rows.append(
            [
                model,
                f"{found['step_seconds']['median']:.3f}",
                f"{rate['median']:.1f} ({rate['min']:.1f}-{rate['max']:.1f})",
                f"{wait['median']:.2%} {'met' if wait['met'] else 'MISSED'}",
                f"{found['floor_over_step']['median']:.2f}",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
