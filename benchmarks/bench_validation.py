"""Duration of a validation per image, and of the metrics alone.

Method: `Validation` evaluates the validation images of a shard folder with each network, with initial weights. The
first validation of a run also measures bicubic, which later ones reuse. The metrics alone are those of random images of
512 px, one per thread on a CPU, 16 on a GPU. Everything is measured once per round, and an additional first round is
not counted.

    python -m benchmarks.bench_validation --shards shards/scale_4x
"""

import os
from pathlib import Path
from time import perf_counter
from typing import Any

# As in the trainer: threads that spin while waiting slow each other down on a busy CPU. Set before PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch

from benchmarks.common import in_rounds, say
from benchmarks.options import benchmark, output_option, rounds_option
from benchmarks.report import print_table, spread, spread_text, write_result
from srshards.process.allocator import keep_freed_memory
from srshards.shards.folder import Shards
from srshards.shards.opening import open_shards
from srshards.terminal.text import Choice
from trainer.catalogue import NETWORKS
from trainer.evaluation.metrics import measure
from trainer.evaluation.sets import ShardSet
from trainer.models import network_spec
from trainer.training.device import choose_device, describe_device, limit_threads
from trainer.training.stopping import StopRequest
from trainer.training.validation import Validation

_METRICS = "metrics"
_IMAGE_PX, _BORDER_PX = 512, 4
_GPU_BATCH = 16


def measure_once(case: str, shards: Shards, images: int, device: torch.device) -> dict[str, float]:
    """Return milliseconds per image, by name, of the metrics alone or the validations of a network."""
    if case == _METRICS:
        return {f"metrics, {_IMAGE_PX} px": _metrics_ms(device)}
    network = network_spec(case, shards.scale).build().to(device).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    validation = Validation([ShardSet("val", shards, "val", upsampled=False, limit=images)])
    found = {}
    for which in ("first", "later"):
        start_s = perf_counter()
        validation.run(network, StopRequest())
        found[f"{case}, {which} validation"] = (perf_counter() - start_s) / validation.num_images * 1000
    return found


@torch.inference_mode()
def _metrics_ms(device: torch.device) -> float:
    batch = torch.get_num_threads() if device.type == "cpu" else _GPU_BATCH
    shape = (batch, 3, _IMAGE_PX, _IMAGE_PX)
    output, target = (torch.randint(0, 256, shape, dtype=torch.uint8, device=device) for _ in range(2))
    measure(output, target, _BORDER_PX).cpu()
    start_s = perf_counter()
    measure(output, target, _BORDER_PX).cpu()
    return (perf_counter() - start_s) / batch * 1000


@benchmark
@click.option("--shards", "folder", type=click.Path(path_type=Path), required=True, help="Shard folder of one scale.")
@click.option("--images", type=click.IntRange(min=1), default=20, help="Validation images.")
@click.option("--models", multiple=True, type=Choice(NETWORKS), default=("ultra_lite", "lite"), help="Networks.")
@click.option("--device", default="auto", help="cpu, cuda, or auto.")
@rounds_option(3)
@output_option("validation.json")
def main(folder: Path, images: int, models: tuple[str, ...], device: str, rounds: int, output: Path) -> None:
    """Measure validations per image.

    \b
    Example:
      python -m benchmarks.bench_validation --shards shards/scale_4x --models ultra_lite
    """
    torch_device = choose_device(device)
    limit_threads()
    keep_freed_memory()
    shards = open_shards(folder)
    found: dict[str, list[float]] = {}
    for number, case in in_rounds((_METRICS, *models), rounds + 1):
        for name, ms in measure_once(case, shards, images, torch_device).items():
            found.setdefault(name, []).append(ms)
            say(f"round {number}/{rounds}  {name}: {ms:.1f} ms per image")
    results: dict[str, Any] = {name: spread(values[1:], 2) for name, values in found.items()}
    command = f"python -m benchmarks.bench_validation --shards DIR --images {images} --rounds {rounds}"
    settings = {"images": min(images, len(shards.val)), "hr_px": shards.hr_size, "scale": shards.scale}
    content = {"settings": settings, "device": describe_device(torch_device), "ms_per_image": results}
    write_result(output, command, folder, content)
    rows = [[name, spread_text(values, 1)] for name, values in results.items()]
    print_table(f"ms per image, {describe_device(torch_device)}", ("case", "median (min-max)"), rows)


if __name__ == "__main__":
    main()
