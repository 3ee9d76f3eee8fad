"""Rate at which the trainer feeds a GPU: streaming, with resident samples, and with one repeated batch (the ceiling).

Method: 4x npy shards of all photos, patches of 192 px, LR input. Every network is trained at every batch size by the
trainer's own step, compiled and captured as a CUDA graph, and with one batch also uncompiled and kernel by kernel. Each
case has a fresh process, all once per round, in reverse order in every second round. A run discards its first seconds
and steps (compilation, kernel autotuning, allocator, prefetched batches), then counts steps for `--seconds`; the host
waits for the GPU at the ends of that window only. "Waiting for data" is the time that the trainer itself reports, as a
fraction of the window (zero for resident samples); "taking batches" is the total time in which the training process
obtains batches, which does not delay a GPU that has other work. Neither shows how long the GPU waits, so each rate is
also given as a share of the ceiling of its round. "Start-up" is the time of the first steps: PyTorch keeps compiled
code in a cache on the disk, so it is long only in the first case that compiles a network.

`standard` is also trained by the usual loop (`gpu_plain.py`): float32, a `DataLoader` of PNG pairs, Adam, `.item()`
after every step. After the window with one batch, PyTorch's profiler sums the kernels of some steps, for comparison
with the arithmetic floor (`gpu_kernels.py`).

    python -m benchmarks.bench_gpu --photos DIR

No run is started after `--minutes`. The result is written after every run, so an early end loses nothing. A combination
that does not fit into memory, or fails, is in the result with the reason. With `--device cpu` everything but the
kernels also works, to try the benchmark with small networks.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import click
import torch

from benchmarks.common import (
    RESULTS,
    PhotoSet,
    RunFailedError,
    in_rounds,
    python_module,
    say,
    scratch_folder,
    timed_command,
)
from benchmarks.gpu_plain import write_pairs
from benchmarks.gpu_report import Key, Runs, show, summarise
from benchmarks.gpu_task import OUR_CASES, PLAIN, Task, result_in
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option
from benchmarks.report import write_result
from benchmarks.stream_stores import make_shards
from srshards.errors import UsageError
from srshards.process.resources import available_cpus
from srshards.shards.folder import Shards
from srshards.shards.opening import open_shards
from trainer.models import MODELS
from trainer.training.device import choose_device

_PLAIN_MODEL = "standard"
_MAX_WORKERS = 16


@dataclass
class Bench:
    """Settings of all runs, and their results in the order of the rounds."""

    shards: Path
    pairs: Path
    device: str
    patch: int
    workers: int
    seconds: float
    runs: Runs = field(default_factory=dict)

    def measure(self, key: Key, round_number: int) -> None:
        """Run one case."""
        task = Task(
            case=key.case,
            model=key.model,
            batch=key.batch,
            patch=self.patch,
            shards=str(self.shards),
            pairs=str(self.pairs),
            device=self.device,
            workers=self.workers,
            seconds=self.seconds,
        )
        try:
            found = result_in(timed_command(python_module("benchmarks.gpu_run", task.as_json()))[1])
        except RunFailedError as error:  # e.g. killed by the system
            found = {"failed": str(error)}
        self.runs.setdefault(key, {})[round_number] = found
        rate = found.get("failed") or f"{key.batch * found['steps'] / found['seconds']:,.1f} patches/s"
        say(f"round {round_number + 1}  {task.name}: {rate}")


def keys(models: Sequence[str], batches: Sequence[int]) -> list[Key]:
    """Return everything measured in a round, the least important last, for which the time may not suffice.

    The plain loop trains `standard`, or the last network without it.
    """
    plain = _PLAIN_MODEL if _PLAIN_MODEL in models else models[-1]
    cases = [(case, model) for case in OUR_CASES for model in models]
    cases.insert(2 * len(models), (PLAIN, plain))
    return [Key(model, batch, case) for case, model in cases for batch in batches]


@benchmark
@photos_option
@click.option("--shards", type=click.Path(path_type=Path), help="Shards of one scale, instead of photos.")
@click.option("--models", type=click.Choice(MODELS), multiple=True, default=MODELS, help="Networks; repeatable.")
@click.option("--batches", type=click.IntRange(min=1), multiple=True, default=(16, 64), help="Batch sizes; repeatable.")
@click.option("--patch", type=click.IntRange(min=1), default=192, help="Edge of a patch in HR px.")
@rounds_option(2)
@click.option("--seconds", type=click.FloatRange(min=0.01), default=5.0, help="Seconds in which steps are counted.")
@click.option("--minutes", type=click.FloatRange(min=0), default=8.0, help="No run is started after this many minutes.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=lambda: min(_MAX_WORKERS, available_cpus()),
    show_default=f"number of CPUs, at most {_MAX_WORKERS}",
    help="Data workers.",
)
@click.option("--device", default="cuda", help="cuda, cuda:N, or cpu to try the benchmark.")
@scratch_option("Where to write.")
@output_option(None)
def main(
    photos: Path | None,
    shards: Path | None,
    models: tuple[str, ...],
    batches: tuple[int, ...],
    patch: int,
    rounds: int,
    seconds: float,
    minutes: float,
    workers: int,
    device: str,
    scratch: Path | None,
    output: Path | None,
) -> None:
    """Measure how fast the trainer feeds a GPU.

    \b
    Example:
      python -m benchmarks.bench_gpu --photos photos
    """
    start_s = monotonic()
    on = _device(device)
    photo_set = PhotoSet.of(photos) if shards is None else None
    path = output or RESULTS / ("gpu.json" if on.type == "cuda" else f"gpu_{on.type}.json")
    source = "--photos DIR" if photo_set else "--shards DIR"
    command = f"python -m benchmarks.bench_gpu {source} --rounds {rounds} --seconds {seconds:g} --device {device}"
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(scratch))
        path_of_shards = make_shards(photo_set, folder / "shards", "npy") if photo_set else Path(shards or "")
        stored = _open(path_of_shards, patch)
        pairs = folder / "pairs"
        num_pairs = write_pairs(path_of_shards.resolve(), pairs)
        bench = Bench(path_of_shards.resolve(), pairs, str(on), patch, workers, seconds)
        settings = {
            "scale": stored.scale,
            "hr_px": stored.hr_size,
            "samples": len(stored.train),
            "png_pairs": num_pairs,
            "patch_px": patch,
            "rounds": rounds,
            "seconds": seconds,
            "minutes": minutes,
            "workers": workers,
        }
        selected = keys(models, batches)
        content: dict[str, Any] = {"settings": settings, **summarise(selected, bench.runs)}
        for number, key in in_rounds(selected, rounds):
            if monotonic() - start_s > 60 * minutes:
                say("time is up: no further run is started")
                break
            bench.measure(key, number)
            content = {"settings": settings, **summarise(selected, bench.runs)}
            write_result(path, command, folder, content)
    show(content)
    if all("unavailable" in case for case in content["cases"]):
        raise click.ClickException(f"nothing was measured; see the reasons in {path}")


def _device(name: str) -> torch.device:
    try:
        device = choose_device(name)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    if device.type not in ("cuda", "cpu"):
        raise click.UsageError(f"--device {name}: expected cuda, cuda:N or cpu")
    return device


def _open(path: Path, patch: int) -> Shards:
    try:
        folder = open_shards(path.resolve())
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    if patch > folder.hr_size or patch % folder.scale:
        raise click.UsageError(
            f"--patch {patch}: expected a multiple of {folder.scale} px of at most {folder.hr_size} px"
        )
    return folder


if __name__ == "__main__":
    main()
