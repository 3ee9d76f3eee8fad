"""Memory of a training step, measured and as `python -m trainer models` computes it.

Method: in a fresh process, the trainer's own step (eager, with EMA and clipping) repeats a batch of noise, 4x, patches
of 192 px, after a warm-up with a network of negligible size. Measured is the increase of the peak of the resident set
over the state after the warm-up; on a GPU, that of the memory which PyTorch has allocated, also with bf16.

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


def measure(model: str, batch: int, device: torch.device) -> dict[str, Any]:
    """Return computed and measured bytes; the ratio is that of float32, or a reason if there is none."""
    found: dict[str, Any] = {
        "computed": training_cost(network_spec(model, SCALE), batch, PATCH_PX // SCALE).training_bytes
    }
    try:
        for amp in ("off", "bf16") if device.type == "cuda" else ("off",):
            args = python_module("benchmarks.network_memory_run", model, batch, device.type, amp)
            found["float32" if amp == "off" else "bfloat16"] = timed_json(args)["bytes"]
    except RunFailedError as error:
        return {**found, "unavailable": str(error)}
    return {**found, "ratio": round(found["float32"] / found["computed"], 3)}


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
        say(f"{model}: {networks[model].get('unavailable') or networks[model]['ratio']}")
    command = f"python -m benchmarks.bench_network_memory --batch {batch}" + "".join(f" --only {name}" for name in only)
    settings = {"scale": SCALE, "patch_px": PATCH_PX, "batch": batch}
    content = {"settings": settings, "device": describe_device(torch_device), "networks": networks}
    path = output or RESULTS / f"network_memory_{torch_device.type}.json"
    write_result(path, command, path.parent, content)
    columns = (
        "network",
        "computed, MB",
        "measured, MB",
        "ratio",
        *(["bf16, MB"] if torch_device.type == "cuda" else []),
    )
    print_table(f"4x, batches of {batch}, {content['device']}", columns, [_row(*item) for item in networks.items()])


def _row(model: str, found: dict[str, Any]) -> list[str]:
    computed = f"{found['computed'] / 1e6:,.0f}"
    if "unavailable" in found:
        return [model, computed, f"not measured: {found['unavailable']}"]
    bf16 = [f"{found['bfloat16'] / 1e6:,.0f}"] if "bfloat16" in found else []
    return [model, computed, f"{found['float32'] / 1e6:,.0f}", f"{found['ratio']:.2f}", *bf16]


if __name__ == "__main__":
    main()
