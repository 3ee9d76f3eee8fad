"""Everything that has to be tested and measured on a GPU, in less than eight minutes.

    python -m benchmarks.bench_gpu --photos DIR

Parts, the most valuable first; gpu/parts.py has their time limits, and what was shortened to meet them:

- `tests`: the tests in tests/gpu, and `compile`, in their background
- `account`: how the wall clock of runs with default settings divides into steps, waiting, validation, saving, start-up
- `rates`: patches per second of each network, batch size and `--step` with one repeated batch (the ceiling), whether
  steps wait for the device, and for how long they occupy the host. The fastest steps are also fed from shards and from
  resident samples. A run discards its first steps and batches, then counts the steps in three windows; the host waits
  for the GPU at the ends of a window only
- `plain`: `standard` trained by the usual loop (`plain_loop.py`)
- `loader`: batches that arrive on the device by number of workers, without a training; copies to the device
- `degradation`: Real-ESRGAN's degradation on the device (`degrade.py`)
- `kernels`: the kernels of the fastest steps by time (`kernels.py`)

The result and its page are written after every figure, so nothing measured is lost if a later part fails, hangs, or the
benchmark is ended. A part that fails or is not reached is in the result with the reason; the exit code is then 1. Every
start measures everything again; `--only PART` replaces a part of an earlier result. With `--device cpu` everything
but the kernels also works, to try the benchmark with small networks.
"""

import json
import signal
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from math import inf
from pathlib import Path
from types import FrameType
from typing import Any

import click
import torch
from click.exceptions import Exit

from benchmarks.common import RESULTS, PhotoSet, RunFailedError, python_module, say, scratch_folder, timed_command
from benchmarks.gpu.parts import COMPILE, DATA_LIMIT_S, PARTS, VARIANTS_LIMIT_S, Part, Settings
from benchmarks.gpu.plain_loop import write_pairs
from benchmarks.gpu.rates import ONE_BATCH, RESIDENT, STREAM
from benchmarks.gpu.results import Results, commit, now, page_path
from benchmarks.gpu.runner import Background, Result, Tests, Worker, run_tasks
from benchmarks.gpu.task import Task
from benchmarks.machine import describe_machine
from benchmarks.options import OWN_NETWORKS, benchmark, output_option, photos_option, scratch_option
from srshards.errors import UsageError
from srshards.process.resources import available_cpus
from srshards.shards.folder import Shards
from srshards.shards.opening import open_shards
from trainer.training.device import choose_device

_MAX_WORKERS = 14  # of the 16 CPU cores: two remain for the training process
_SCALE = 4
_MAX_PHOTOS, _VAL_FRACTION = 256, 0.25
_DEGRADED_PHOTOS, _VARIANTS = 64, 8
_NAMES = tuple(part.name for part in PARTS)


@benchmark
@photos_option
@click.option("--shards", type=click.Path(path_type=Path), help="Shards of one scale, instead of photos.")
@click.option("--only", type=click.Choice(_NAMES), multiple=True, help="Measure this part only; repeatable.")
@click.option(
    "--models", type=click.Choice(OWN_NETWORKS), multiple=True, default=OWN_NETWORKS, help="Networks; repeatable."
)
@click.option("--batches", type=click.IntRange(min=1), multiple=True, default=(16, 64), help="Batch sizes; repeatable.")
@click.option("--patch", type=click.IntRange(min=1), default=192, help="Edge of a patch in HR px.")
@click.option("--seconds", type=click.FloatRange(min=0.01), default=0.35, help="Seconds of each of three windows.")
@click.option("--train-seconds", type=click.FloatRange(min=1), default=45.0, help="Seconds of the run of `lite`.")
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
    only: tuple[str, ...],
    models: tuple[str, ...],
    batches: tuple[int, ...],
    patch: int,
    seconds: float,
    train_seconds: float,
    workers: int,
    device: str,
    scratch: Path | None,
    output: Path | None,
) -> None:
    """Test and measure on a GPU.

    \b
    Examples:
      python -m benchmarks.bench_gpu --photos photos
      python -m benchmarks.bench_gpu --shards shards/scale_4x --only tests
    """
    on = _device(device)
    photo_set = PhotoSet.of(photos) if shards is None else None
    path = output or RESULTS / ("gpu.json" if on.type == "cuda" else f"gpu_{on.type}.json")
    parts = [part for part in PARTS if not only or part.name in only]
    with _ended_by_signals(), scratch_folder(scratch) as folder, Worker() as worker:
        of_scale = _make_shards(photo_set, folder) if photo_set else Path(shards or "").resolve()
        stored = _open(of_scale, patch)
        num_pairs = write_pairs(of_scale, folder / "pairs")
        settings = Settings(
            device=str(on),
            models=models,
            batches=batches,
            patch=patch,
            scale=stored.scale,
            workers=workers,
            seconds=seconds,
            train_seconds=train_seconds,
            shards=str(of_scale),
            variants=_make_variants(photo_set, folder) if photo_set else None,
            pairs=str(folder / "pairs"),
            scratch=str(folder),
        )
        source = "--photos DIR" if photo_set else "--shards DIR"
        run = {
            "command": " ".join(
                [f"python -m benchmarks.bench_gpu {source} --device {device}", *(f"--only {name}" for name in only)]
            ),
            "date": now(),
            "commit": commit(),
            "machine": describe_machine(folder),
            "device": worker.run(Task("benchmarks.gpu.device:describe", "device", 60, {"device": str(on)}), inf),
            "settings": {
                "scale": stored.scale,
                "hr_px": stored.hr_size,
                "samples": len(stored.train),
                "validation_samples": len(stored.val),
                "png_pairs": num_pairs,
                "patch_px": patch,
                "seconds": seconds,
                "train_seconds": train_seconds,
                "workers": workers,
            },
        }
        results = Results(path, run, parts, _earlier(path) if only else {})
        try:
            _measure(parts, settings, worker, results)
        except KeyboardInterrupt:
            say(f"ended; {path} has what was measured")
            raise Exit(128 + signal.SIGINT) from None
    say(f"wrote {path} and {page_path(path)}")
    if not results.are_complete:
        raise click.ClickException(f"not everything was measured, or a test failed; see {page_path(path)}")


def _measure(parts: Sequence[Part], settings: Settings, worker: Worker, results: Results) -> None:
    """Measure the parts one after the other. A failure of one does not prevent the next."""
    with ExitStack() as stack:
        background = None
        for part in parts:
            if part.name == COMPILE and part.tasks:
                background = stack.enter_context(Background(part.tasks(settings), part.limit_s))
        for part in parts:
            results.begin(part.name)
            reason = ""
            try:
                with closing(_results_of(part, settings, worker, background)) as found:
                    for result in found:
                        results.add(result)
                        say(f"{part.name}: {_in_words(result)}")
            except Exception as error:  # a bug of the benchmark itself
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}"
            say(f"{part.name}: {results.end(reason)}")


def _results_of(
    part: Part, settings: Settings, worker: Worker, background: Background | None
) -> Generator[Result, None, None]:
    if part.tasks is None:
        yield from Tests(part.limit_s).results()
    elif part.name == COMPILE and background:
        yield from background.results()
    else:
        yield from run_tasks(worker, part.tasks(settings), part.limit_s)


def _in_words(result: Result) -> str:
    """Return a line of progress."""
    outcome = result.get("outcome") or ("not reached" if "not_reached" in result else "done")
    reason = result.get("failed") or result.get("reason", "")
    rates = [result[source]["patches_per_second"] for source in (ONE_BATCH, STREAM, RESIDENT) if source in result]
    rate = f" {', '.join(format(rate['median'], ',.0f') for rate in rates)} patches/s" if rates else ""
    return f"{result['name']}: {'failed' if 'failed' in result else outcome}{rate}{f' ({reason})' if reason else ''}"


def _make_shards(photos: PhotoSet, folder: Path) -> Path:
    """Generate shards with enough images for validations as long as those of a training."""
    some = photos.first(_MAX_PHOTOS, folder / "photos")
    return _generate(some, folder / "shards", DATA_LIMIT_S, "--val-fraction", _VAL_FRACTION)


def _make_variants(photos: PhotoSet, folder: Path) -> str | None:
    """Generate shards with several degraded LR images per sample; None if it takes too long."""
    options = ("--degradation", "realesrgan", "--variants", _VARIANTS, "--val-fraction", 0)
    some = photos.first(_DEGRADED_PHOTOS, folder / "degraded_photos")
    try:
        return str(_generate(some, folder / "variants", VARIANTS_LIMIT_S, *options))
    except RunFailedError as error:
        say(f"no shards with variants: {error}")
        return None


def _generate(photos: PhotoSet, folder: Path, limit_s: float, *options: object) -> Path:
    """Generate small shards, so that all CPU cores have work; return the folder of the scale."""
    sizes = ("-s", _SCALE, "--size", 512, "--shard-bytes", "8MB")
    args = ("generate", "-i", photos.root, "-o", folder, *sizes, *options, "--auto")
    timed_command(python_module("shardgen", *args), limit_s=limit_s)
    return folder / f"scale_{_SCALE}x"


def _earlier(path: Path) -> dict[str, Any]:
    """Return the result of earlier runs, if there is one."""
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that no child process is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # e.g. not with nohup
    previous = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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
        folder = open_shards(path)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    if patch > folder.hr_size or patch % folder.scale:
        raise click.UsageError(
            f"--patch {patch}: expected a multiple of {folder.scale} px of at most {folder.hr_size} px"
        )
    return folder


if __name__ == "__main__":
    main()
