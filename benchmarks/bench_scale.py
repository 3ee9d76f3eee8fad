"""Growth of time and memory with the number of photos to plan, finished shards, training shards, samples and epochs.

Method: each size of each task in a fresh process (scale_tasks.py), one after the other, `--rounds` times. Sizes are
tenfold multiples up to the requested one.

  plan       synthetic photos planned, and the photo list of every shard hashed (plan_million.py)
  inventory  the generator takes inventory of the finished shards, and builds the manifest
  start      the trainer opens a folder of shards, checks that each exists, plans, and computes the sample
             numbers of the first batch; the data sent to each data worker, and a process that receives it as a worker
             does
  schedule   with 1,000 samples per shard: construction; the first step of an epoch (permuting all shards);
             steps in the middle of an epoch, where `mean` includes the permutation of each block's samples
  block      the first step of a block, by its number of samples
  cache      the hit rate of a cache that is smaller than the shards (scale_cache.py); no growth

Shards of `inventory` and `start` are sparse files of real sizes; markers and manifest are real.

Times are CPU times, which other load on the machine changes little; everything read is in the page cache.

The growth of a figure is its factor per tenfold size: the largest between neighbouring sizes, from the best round of
each (other load only adds to it). The limit is 12: linear growth is 10, quadratic growth 100. Figures below 5 ms, 5 MB
or (for files) 100 kB count as these values. The time of a step may grow by a factor of 3: it does not depend on the
number of shards, but on CPU caches. Exit code 1 if a figure exceeds its limit.

    python -m benchmarks.bench_scale --rounds 3
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from shutil import rmtree
from typing import Any

import click

from benchmarks.common import python_module, say, scratch_folder, timed_json
from benchmarks.options import benchmark, output_option, rounds_option, scratch_option
from benchmarks.report import print_table, spread, verdict, write_result
from benchmarks.scale_cache import hit_rates
from benchmarks.scale_folders import make_folder

_LINEAR, _FLAT = 12.0, 3.0


@dataclass(frozen=True)
class Figure:
    """A measured value: displayed in units of `unit`, counted as at least `floor`, with a limit of its growth."""

    key: str
    what: str
    unit: float
    floor: float
    limit: float = _LINEAR


def _seconds(key: str, what: str) -> Figure:
    return Figure(key, f"{what}, s", 1, 5e-3)


def _megabytes(key: str, what: str, floor: float = 5e6) -> Figure:
    return Figure(key, f"{what}, MB", 1e6, floor)


def _step(key: str, what: str) -> Figure:
    return Figure(key, f"{what}, µs", 1, 1, _FLAT)


@dataclass(frozen=True)
class Workload:
    """A task of growing size, counted in `of`. `measure(size, scratch)` returns the figures of one round."""

    name: str
    of: str
    sizes: tuple[int, ...]
    measure: Callable[[int, Path], dict[str, Any]]
    figures: tuple[Figure, ...]


def workloads(photos: int, finished: int, shards: int, samples: int, block: int) -> list[Workload]:
    """Return everything measured, up to these sizes."""
    return [
        Workload(
            "plan",
            "photos",
            _tenfold(photos, 3),
            lambda size, _: _task("plan", size),
            (
                _seconds("cpu_s", "planned and hashed"),
                _megabytes("listed_rss_bytes", "memory with the listing"),
                _megabytes("peak_rss_bytes", "peak memory"),
            ),
        ),
        Workload(
            "inventory",
            "finished shards",
            _tenfold(finished, 3),
            _inventory,
            (
                _seconds("inventory_s", "shards found finished"),
                _seconds("manifest_s", "manifest built"),
                _megabytes("manifest_bytes", "manifest", 1e5),
            ),
        ),
        Workload(
            "start",
            "shards",
            _tenfold(shards, 3),
            _start,
            (
                _megabytes("manifest_bytes", "manifest", 1e5),
                _seconds("manifest_s", "manifest read"),
                _seconds("open_s", "manifest read, shards checked"),
                _seconds("plan_s", "run planned"),
                _seconds("numbers_s", "first batch's numbers"),
                _seconds("first_s", "the last three"),
                _megabytes("held_bytes", "memory of the trainer"),
                _megabytes("peak_bytes", "peak memory"),
                _megabytes("pickle_bytes", "sent to each worker", 1e5),
                _seconds("pickle_s", "pickled"),
                _seconds("worker_s", "worker, first batch's crops"),
                _megabytes("worker_held_bytes", "memory of a worker"),
                _megabytes("worker_peak_bytes", "peak memory"),
            ),
        ),
        Workload(
            "schedule",
            "samples",
            _tenfold(samples, 5),
            lambda size, _: _task("schedule", size),
            (
                _seconds("made_s", "constructed"),
                _seconds("first_epoch_s", "first step of epoch 1"),
                _seconds("late_epoch_s", "first step of epoch 1,001"),
                _step("first_step_us", "step of epoch 1, median"),
                _step("late_step_us", "step of epoch 1,001, median"),
                _step("first_mean_step_us", "step of epoch 1, mean"),
                _step("late_mean_step_us", "step of epoch 1,001, mean"),
            ),
        ),
        Workload(
            "block",
            "samples in a block",
            _tenfold(block, 4),
            lambda size, _: _task("block", size),
            (_seconds("block_s", "permuted"), _megabytes("block_bytes", "peak memory")),
        ),
    ]


def _tenfold(largest: int, count: int) -> tuple[int, ...]:
    return tuple(largest // 10**power for power in reversed(range(count)))


def _task(*args: object) -> dict[str, Any]:
    return timed_json(python_module("benchmarks.scale_tasks", *args))


def _inventory(size: int, scratch: Path) -> dict[str, Any]:
    return _task("inventory", _kept_folder(scratch / f"finished-{size}", size, True).parent, size)


def _start(size: int, scratch: Path) -> dict[str, Any]:
    folder, pickled = _kept_folder(scratch / f"shards-{size}", size, False), scratch / "reader.pickle"
    return {**_task("start", folder, pickled), **_task("worker", pickled)}


def _kept_folder(output: Path, size: int, with_markers: bool) -> Path:
    """Generate the folder, in the first round only."""
    return next(output.glob("scale_*x"), None) or make_folder(output, size, with_markers)


def measure(work: Workload, rounds: int, scratch: Path) -> dict[str, Any]:
    """Return by figure: the spread of its values at each size, the growth per tenfold, and the verdict."""
    found: dict[int, list[dict[str, Any]]] = {}
    for number in range(rounds):
        for size in work.sizes:
            say(f"round {number + 1}/{rounds}  {work.name}: {size:,} {work.of}")
            found.setdefault(size, []).append(work.measure(size, scratch))
    for folder in scratch.iterdir():
        if folder.is_dir():
            rmtree(folder)
    return {figure.key: _verdict(figure, work.sizes, found) for figure in work.figures}


def _verdict(figure: Figure, sizes: Sequence[int], found: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
    values = [[run[figure.key] for run in found[size]] for size in sizes]
    factor = growth(sizes, [min(of_size) for of_size in values], figure.floor)
    return {
        "what": figure.what,
        "values": [spread([value / figure.unit for value in of_size], 4) for of_size in values],
        "growth_per_tenfold": round(factor, 2),
        "at_most": figure.limit,
        "met": factor <= figure.limit,
    }


def growth(sizes: Sequence[int], values: Sequence[float], floor: float) -> float:
    """Return the largest factor between neighbours, scaled to tenfold size. Values below `floor` count as `floor`."""
    raised = [max(value, floor) for value in values]
    pairs = zip(sizes, sizes[1:], raised, raised[1:], strict=False)
    return max(10 ** (log10(b / a) / log10(large / small)) for small, large, a, b in pairs)


def rows(sizes: Sequence[int], figures: Mapping[str, Any]) -> Iterator[list[str]]:
    for figure in figures.values():
        values = [
            f"{value['min']:,.4g}" if value["min"] < 1000 else f"{value['min']:,.0f}" for value in figure["values"]
        ]
        factor, limit = f"{figure['growth_per_tenfold']:.2f}", f"{figure['at_most']:g}"
        yield [figure["what"], *values, factor, limit, verdict(figure["met"])]


@benchmark
@click.option("--photos", type=click.IntRange(1000), default=10_000_000, help="Photos to plan, at most.")
@click.option("--finished", type=click.IntRange(200), default=10_000, help="Finished shards, at most.")
@click.option("--shards", type=click.IntRange(200), default=100_000, help="Shards to train from, at most.")
@click.option("--samples", type=click.IntRange(10**6), default=10**9, help="Samples of the schedule, at most.")
@click.option("--block", type=click.IntRange(10**5), default=10**7, help="Samples in a block, at most.")
@rounds_option(3, "Number of measurements of each size.")
@scratch_option("Folder for temporary files, two per shard.")
@output_option("scale.json")
def main(
    photos: int,
    finished: int,
    shards: int,
    samples: int,
    block: int,
    rounds: int,
    scratch: Path | None,
    output: Path,
) -> None:
    """Measure how time and memory grow with the work. Exit code 1 if growth exceeds its limit.

    \b
    Example:
      python -m benchmarks.bench_scale --rounds 3
    """
    results: dict[str, Any] = {}
    sizes = {"photos": photos, "finished": finished, "shards": shards, "samples": samples, "block": block}
    with scratch_folder(scratch) as folder:
        for work in workloads(**sizes):
            figures = measure(work, rounds, folder)
            results[work.name] = {"of": work.of, "sizes": work.sizes, "figures": figures}
            columns = [f"{work.name}: {work.of}", *(f"{size:,}" for size in work.sizes)]
            print_table("", [*columns, "per 10x", "at most", ""], list(rows(work.sizes, figures)))
        rates = hit_rates()
        shares = [f"{rate['share']:.0%}" for rate in rates]
        print_table(
            "",
            ["cache: shards that fit", *shares],
            [[f"hits, {how}", *(f"{rate[how]:.1%}" for rate in rates)] for how in ("expected", "simulated")],
        )
        options = " ".join(f"--{name} {size}" for name, size in sizes.items())
        command = f"python -m benchmarks.bench_scale --rounds {rounds} {options}"
        write_result(
            output, command, folder, {"settings": {"rounds": rounds, **sizes}, "works": results, "cache": rates}
        )
    above = [f["what"] for work in results.values() for f in work["figures"].values() if not f["met"]]
    if above:
        raise click.ClickException(f"growth above the limit: {'; '.join(above)}")


if __name__ == "__main__":
    main()
