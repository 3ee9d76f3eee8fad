"""How time and memory grow with the work: photos to plan, finished shards, shards to train from, samples, epochs.

Method: each size of each piece of work in a fresh process (scale_tasks.py), one after the other, `--rounds` times.
Sizes are tenfold of one another, up to the one that is asked for.

  plan       made-up photos planned, and the list of every shard hashed (plan_million.py)
  inventory  the generator finds that so many shards are finished, and makes the manifest
  start      the trainer opens a folder of so many shards, all of which it looks for, plans, and has the numbers of the
             first batch; what it then sends to each data worker, and a process that takes it as a worker does
  schedule   for so many samples, 1,000 in a shard: made once; an epoch's first step (which permutes all shards), and
             the steps in the middle of an epoch, where `mean` holds the permuting of each block's samples
  block      the first step of a block of so many samples
  cache      how often a cache that is smaller than the shards has the one that is asked for (scale_cache.py); no growth

Shards of `inventory` and `start` are files of the right sizes without content; markers and manifest are real.

Times are of the CPU, so that neighbours on the machine change them little; what is read lies in the page cache.

The factor of a figure is its growth per tenfold work, the worst between two neighbouring sizes, of the best of the
rounds (whatever else the machine does only adds to it). It may be 12: linear is 10, and what is quadratic grows by 100.
Below 5 ms, 5 MB or 100 kB (of a file) a figure counts as that much. The cost of a step may grow by 3: it may not depend
on how many shards there are, but there are the caches. Exit code 1 when something grows faster.

Command: python -m benchmarks.bench_scale --rounds 3
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from shutil import rmtree
from typing import Any

import click

from benchmarks.common import RunFailedError, python_module, say, scratch_folder, timed_command
from benchmarks.options import output_option, scratch_option
from benchmarks.report import print_table, spread, write_result
from benchmarks.scale_cache import hit_rates
from benchmarks.scale_folders import make_folder
from srshards.terminal.help import Command

_LINEAR, _FLAT = 12.0, 3.0


@dataclass(frozen=True)
class Figure:
    """A figure of a task: how it is shown (in units of `unit`), from where on it counts, its growth per tenfold."""

    key: str
    what: str
    unit: float
    floor: float
    limit: float = _LINEAR


def _seconds(key: str, what: str) -> Figure:
    return Figure(key, f"{what}, s", 1, 5e-3)


def _megabytes(key: str, what: str) -> Figure:
    return Figure(key, f"{what}, MB", 1e6, 5e6)


def _file_megabytes(key: str, what: str) -> Figure:
    return Figure(key, f"{what}, MB", 1e6, 1e5)


def _step(key: str, what: str) -> Figure:
    return Figure(key, f"{what}, µs", 1, 1, _FLAT)


@dataclass(frozen=True)
class Work:
    """A piece of work of growing size. `measure(size, scratch)` gives the figures of one round."""

    name: str
    of: str
    sizes: tuple[int, ...]
    measure: Callable[[int, Path], dict[str, Any]]
    figures: tuple[Figure, ...]


def works(photos: int, finished: int, shards: int, samples: int, block: int) -> list[Work]:
    """All that is measured, up to these sizes."""
    return [
        Work(
            "plan",
            "photos",
            _tenfold(photos, 3),
            lambda size, _: _task("plan", size),
            (
                _seconds("cpu_s", "planned and hashed"),
                _megabytes("listed_rss_bytes", "memory with the listing"),
                _megabytes("peak_rss_bytes", "memory at its peak"),
            ),
        ),
        Work(
            "inventory",
            "finished shards",
            _tenfold(finished, 3),
            _inventory,
            (
                _seconds("inventory_s", "all found finished"),
                _seconds("manifest_s", "manifest made"),
                _file_megabytes("manifest_bytes", "manifest"),
            ),
        ),
        Work(
            "start",
            "shards",
            _tenfold(shards, 3),
            _start,
            (
                _file_megabytes("manifest_bytes", "manifest"),
                _seconds("manifest_s", "manifest read"),
                _seconds("open_s", "manifest read, shards looked for"),
                _seconds("plan_s", "run planned"),
                _seconds("numbers_s", "first batch's numbers"),
                _seconds("first_s", "the last three"),
                _megabytes("held_bytes", "memory of the trainer for it"),
                _megabytes("peak_bytes", "at its peak"),
                _file_megabytes("pickle_bytes", "sent to each worker"),
                _seconds("pickle_s", "made into what is sent"),
                _seconds("worker_s", "worker, first batch's places"),
                _megabytes("worker_held_bytes", "memory of a worker for it"),
                _megabytes("worker_peak_bytes", "at its peak"),
            ),
        ),
        Work(
            "schedule",
            "samples",
            _tenfold(samples, 5),
            lambda size, _: _task("schedule", size),
            (
                _seconds("made_s", "made"),
                _seconds("first_epoch_s", "first step of epoch 1"),
                _seconds("late_epoch_s", "first step of epoch 1,001"),
                _step("first_step_us", "step of epoch 1, median"),
                _step("late_step_us", "step of epoch 1,001, median"),
                _step("first_mean_step_us", "step of epoch 1, mean"),
                _step("late_mean_step_us", "step of epoch 1,001, mean"),
            ),
        ),
        Work(
            "block",
            "samples in a block",
            _tenfold(block, 4),
            lambda size, _: _task("block", size),
            (_seconds("block_s", "permuted"), _megabytes("block_bytes", "memory, at its peak")),
        ),
    ]


def _tenfold(largest: int, count: int) -> tuple[int, ...]:
    return tuple(largest // 10**power for power in reversed(range(count)))


def _task(*args: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(timed_command(python_module("benchmarks.scale_tasks", *args))[1])
    return found


def _inventory(size: int, scratch: Path) -> dict[str, Any]:
    return _task("inventory", _kept_folder(scratch / f"finished-{size}", size, True).parent, size)


def _start(size: int, scratch: Path) -> dict[str, Any]:
    folder, pickled = _kept_folder(scratch / f"shards-{size}", size, False), scratch / "reader.pickle"
    return {**_task("start", folder, pickled), **_task("worker", pickled)}


def _kept_folder(output: Path, size: int, with_markers: bool) -> Path:
    """Made in the first round."""
    return next(output.glob("scale_*x"), None) or make_folder(output, size, with_markers)


def measure(work: Work, rounds: int, scratch: Path) -> dict[str, Any]:
    """By figure: its values at each size with their spread, the growth per tenfold, and whether that is allowed."""
    found: dict[int, list[dict[str, Any]]] = {}
    for number in range(rounds):
        for size in work.sizes:
            say(f"round {number + 1}/{rounds}  {work.name}: {size:,} {work.of}")
            found.setdefault(size, []).append(work.measure(size, scratch))
    for folder in scratch.iterdir():
        if folder.is_dir():
            rmtree(folder)
    return {figure.key: _judged(figure, work.sizes, found) for figure in work.figures}


def _judged(figure: Figure, sizes: Sequence[int], found: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
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
    """The largest factor between neighbours, as it would be for ten times the size. Less than `floor` counts as it."""
    raised = [max(value, floor) for value in values]
    pairs = zip(sizes, sizes[1:], raised, raised[1:], strict=False)
    return max(10 ** (log10(b / a) / log10(large / small)) for small, large, a, b in pairs)


def rows(sizes: Sequence[int], figures: Mapping[str, Any]) -> Iterator[list[str]]:
    for figure in figures.values():
        values = [
            f"{value['min']:,.4g}" if value["min"] < 1000 else f"{value['min']:,.0f}" for value in figure["values"]
        ]
        verdict = "met" if figure["met"] else "MISSED"
        yield [figure["what"], *values, f"{figure['growth_per_tenfold']:.2f}", f"{figure['at_most']:g}", verdict]


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--photos", type=click.IntRange(1000), default=10_000_000, help="To plan, at most.")
@click.option("--finished", type=click.IntRange(200), default=10_000, help="Shards that the generator finds, at most.")
@click.option("--shards", type=click.IntRange(200), default=100_000, help="To train from, at most.")
@click.option("--samples", type=click.IntRange(10**6), default=10**9, help="Of the schedule, at most.")
@click.option("--block", type=click.IntRange(10**5), default=10**7, help="Samples in a block, at most.")
@click.option("--rounds", type=click.IntRange(1), default=3, help="How often each is measured.")
@scratch_option("Where to write: two files for each shard.")
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
    """Measure how time and memory grow as the work does. Exit code 1 when anything grows above linear.

    \b
    Example:
      python -m benchmarks.bench_scale --rounds 3
    """
    done: dict[str, Any] = {}
    sizes = {"photos": photos, "finished": finished, "shards": shards, "samples": samples, "block": block}
    try:
        with scratch_folder(scratch) as folder:
            for work in works(**sizes):
                figures = measure(work, rounds, folder)
                done[work.name] = {"of": work.of, "sizes": work.sizes, "figures": figures}
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
                output, command, folder, {"settings": {"rounds": rounds, **sizes}, "works": done, "cache": rates}
            )
    except RunFailedError as error:
        raise click.ClickException(str(error)) from error
    above = [f["what"] for work in done.values() for f in work["figures"].values() if not f["met"]]
    if above:
        raise click.ClickException(f"grows faster than it may: {'; '.join(above)}")


if __name__ == "__main__":
    main()
