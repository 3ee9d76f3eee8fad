"""Memory of a training step, measured and as `python -m trainer models` computes it.

Method: in a fresh process, the trainer's own step (eager, with EMA and clipping) repeats a batch of noise, 4x, patches
of 192 px, after a warm-up with a network of negligible size. On a CPU, measured is the increase of the peak of the
resident set over the state after the warm-up: in a process that returns freed memory to the system, which is what the
tensors take, and as the trainer does it by default, keeping freed memory, in which gaps remain. On a GPU it is the
memory that PyTorch has allocated, in float32 and with bf16.

    python -m benchmarks.bench_network_memory
"""

from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.common import RESULTS, RunFailedError, python_module, say, timed_json
from benchmarks.cpu_step_run import PATCH_PX, SCALE
from benchmarks.options import benchmark, output_option
from benchmarks.report import print_table, write_result
from trainer.catalogue import NETWORKS
from trainer.models import network_spec
from trainer.models.cost import training_cost
from trainer.training.device import choose_device, describe_device

# By device, the measurements: --amp and environment of the process.
_MEASURED: dict[str, dict[str, tuple[str, dict[str, str]]]] = {
    "cpu": {"returning": ("off", {"MALLOC_TRIM_THRESHOLD_": "131072"}), "keeping": ("off", {})},
    "cuda": {"float32": ("off", {}), "bfloat16": ("bf16", {})},
}


def measure(model: str, batch: int, device: torch.device) -> dict[str, Any]:
    """Return the computed bytes, the measured ones and their ratios to these; or why they are not known."""
    computed = training_cost(network_spec(model, SCALE), batch, PATCH_PX // SCALE).training_bytes
    found: dict[str, Any] = {"computed": computed}
    for name, (amp, environment) in _MEASURED[device.type].items():
        args = python_module("benchmarks.network_memory_run", model, batch, device.type, amp)
        try:
            num_bytes = timed_json(args, environment)["bytes"]
        except RunFailedError as error:  # probably a lack of memory
            return {**found, "unavailable": str(error)}
        found[name] = {"bytes": num_bytes, "ratio": round(num_bytes / computed, 3)}
    return found


@benchmark
@click.option("--batch", type=click.IntRange(min=1), default=16, help="Patches per batch.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(NETWORKS)), help="Network; may be repeated. [default: all]"
)
@click.option("--device", default="auto", help="cpu, cuda, or auto.")
@output_option(None)
def main(batch: int, only: tuple[str, ...], device: str, output: Path | None) -> None:
    """Compare computed and measured memory of a training step of every network.

    \b
    Example:
      python -m benchmarks.bench_network_memory --batch 4 --only lite --only span
    """
    torch_device = choose_device(device)
    networks = {}
    for model in only or NETWORKS:
        networks[model] = measure(model, batch, torch_device)
        say(" ".join(_row(model, networks[model])))
    command = f"python -m benchmarks.bench_network_memory --batch {batch}" + "".join(f" --only {name}" for name in only)
    settings = {"scale": SCALE, "patch_px": PATCH_PX, "batch": batch}
    content = {"settings": settings, "device": describe_device(torch_device), "networks": networks}
    path = output or RESULTS / f"network_memory_{torch_device.type}.json"
    write_result(path, command, path.parent, content)
    columns = ("network", "computed, MB", *(f"{name}, MB" for name in _MEASURED[torch_device.type]))
    print_table(f"4x, batches of {batch}, {content['device']}", columns, [_row(*item) for item in networks.items()])


def _row(model: str, found: dict[str, Any]) -> list[str]:
    computed, *measured = found.values()
    cells = [
        "not measured" if isinstance(one, str) else f"{one['bytes'] / 1e6:,.0f} ({one['ratio']:.2f})"
        for one in measured
    ]
    return [model, f"{computed / 1e6:,.0f}", *cells]


if __name__ == "__main__":
    main()
