"""Rate at which patches reach the training process: this project's loader and the common alternatives.

Method: the generator builds 4x triplets of 512 px from `--num-photos` photos. Every case reads the same triplets from a
separate store, written as its documentation recommends (`peers/`, one module each). All deliver batches of 16 aligned
192 px patches (HR, up) in random order, cropped at random, without augmentation. Each case runs in a fresh process, all
once per round, in reverse order in every second round. A run reads its store into the page cache, discards the first
second and the first 16 batches, then counts batches for `--seconds` and at least 24 batches, from one batch to another.
It does so twice, in two processes:

  untouched   the batch is taken and dropped
  copied      the training process copies each batch into the same two arrays

The CPU time of the main process, including its threads, is given per second of the window, from the untouched run.
Bytes read from disk during the window are in the result: more than 0 means that the store was not completely in the
page cache.

Also measured: in each round, two processes that only copy patches (`copy_floor.c`), and memcpy of this machine; this
loader's rate relative to memcpy for several patch sizes, with 1 and 2 workers; the time from process start to the first
batch with 1,000 shards; this loader's memory after 1, 10 and 50 epochs.

    python -m benchmarks.bench_stream --photos DIR --peers PYTHON --ffcv PYTHON --plot stream.png

`peers/README.md` says how to create the two environments. A case that fails, or whose environment is missing, is in the
result with the reason.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any

import click

from benchmarks.bench_plan import make_tiny_photos
from benchmarks.common import (
    PhotoSet,
    RunFailedError,
    alternating,
    python_module,
    say,
    scratch_folder,
    timed_command,
    timed_json,
)
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option
from benchmarks.peers.task import SCALE, Task
from benchmarks.report import print_table, ratio_row, spread, spread_text, verdict, write_result
from benchmarks.stream_cases import (
    FFCV,
    FLOOR,
    OUR_CASES,
    OURS,
    PEER_CASES,
    PEERS,
    RATIOS,
    SCALING_CASES,
    TOUCHES,
    Case,
    our_name,
)
from benchmarks.stream_floor import CopyFloor
from benchmarks.stream_measure import Counted, Window
from benchmarks.stream_memcpy import memcpy_rate
from benchmarks.stream_memory import MARK as MEMORY_MARK
from benchmarks.stream_plot import draw_rates
from benchmarks.stream_run import result_in
from benchmarks.stream_stores import NO_UP, make_shards, write_triplets
from srshards.format import CODECS

BATCH = 16
_EPOCHS = (1, 10, 50)
_MAX_START_S = 2.0
_TINY_PATCH_PX = 16
_PACKAGES = {
    PEERS: ("torch", "numpy", "webdataset", "wids", "lmdb", "mosaicml-streaming", "litdata", "pyarrow"),
    FFCV: ("torch", "numpy", "ffcv", "numba"),
}


@dataclass
class Bench:
    """Settings of all runs, and their windows by case and touch in the order of the rounds."""

    scratch: Path
    pythons: Mapping[str, str]
    window: Window
    runs: dict[str, dict[str, list[Counted]]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    # Of single runs, by case; a case that fails twice is unavailable.
    failures: dict[str, list[str]] = field(default_factory=dict)
    memcpy: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: []})
    floor: list[float] = field(default_factory=list)  # pairs/s of two processes that only copy

    def task(self, case: Case) -> Task:
        """Return the case's task."""
        store = self.scratch / "stores" / case.store
        if case.where == OURS:
            store = store / f"scale_{SCALE}x"
        return Task(
            store=str(store),
            triplets=str(self.scratch / "triplets"),
            photos=str(self.scratch / "photos"),
            variant=case.variant,
            patch=case.patch,
            batch=BATCH,
            workers=case.workers,
            input=case.input,
            crops=case.crops,
        )

    def command(self, case: Case, *more: str) -> list[str]:
        """Return the command that runs the case in its environment."""
        python = self.pythons.get(case.where, sys.executable)
        return [python, "-m", "benchmarks.stream_run", case.module, self.task(case).as_json(), *more]

    def prepare(self, case: Case) -> None:
        """Write the case's store, or record why that failed."""
        if case.where in (PEERS, FFCV) and case.where not in self.pythons:
            self.unavailable[case.name] = f"--{case.where} PYTHON was not passed"
            return
        try:
            timed_command(self.command(case))
        except RunFailedError as error:
            self.unavailable[case.name] = str(error)
        say(f"prepared  {case.name}: {self.unavailable.get(case.name, 'works')}")

    def measure(self, case: Case, touch: str) -> None:
        """Run a case and record its window; after a failure, try once more."""
        for _ in range(2):
            if case.name in self.unavailable:
                return
            try:
                counted = result_in(timed_command(self.command(case, json.dumps(asdict(self.window)), touch))[1])
            except (RunFailedError, ValueError) as error:
                self.failures.setdefault(case.name, []).append(str(error))
                say(f"          {case.name}, {touch}: {error}")
            else:
                self.runs.setdefault(case.name, {}).setdefault(touch, []).append(counted)
                say(f"          {case.name}, {touch}: {rate(counted):,.0f} patches/s, CPU {counted.main_cpu:.2f}")
                return
        self.unavailable[case.name] = self.failures[case.name][-1]
        self.runs.pop(case.name, None)

    def rates(self) -> dict[str, dict[str, list[float]]]:
        """Return patches per second by case and touch, in the order of the rounds."""
        return {
            name: {touch: [rate(run) for run in runs] for touch, runs in by_touch.items()}
            for name, by_touch in self.runs.items()
        }


def rate(counted: Counted) -> float:
    """Return patches per second."""
    return counted.batches * BATCH / counted.seconds


def run_rounds(bench: Bench, cases: Sequence[Case], rounds: int, floor: CopyFloor) -> None:
    """Run every case once per round, with both touches (the patch sizes of the scaling table: untouched only)."""
    only_untouched = {case.name for case in SCALING_CASES}
    for number in range(rounds):
        say(f"round {number + 1}/{rounds}")
        for processes, rates in bench.memcpy.items():
            rates.append(memcpy_rate(processes))
        bench.floor.append(floor.pairs_per_second(2))
        for case in alternating(cases, number):
            for touch in TOUCHES[:1] if case.name in only_untouched else TOUCHES:
                bench.measure(case, touch)


def summarise_cases(bench: Bench, cases: Sequence[Case]) -> dict[str, Any]:
    """Return by case: patches/s by touch, CPU of the main process, bytes read from disk; or why it is unavailable."""
    result: dict[str, Any] = {}
    for case in cases:
        heading: dict[str, Any] = {
            "what": case.what,
            "input": case.input,
            "patch_px": case.patch,
            "workers": case.workers,
        }
        if case.name in bench.failures:
            heading["failures"] = bench.failures[case.name]
        if case.name in bench.unavailable:
            result[case.name] = {**heading, "unavailable": bench.unavailable[case.name]}
            continue
        runs = bench.runs[case.name]
        result[case.name] = {
            **heading,
            "patches_per_second": {touch: spread([rate(run) for run in some], 0) for touch, some in runs.items()},
            "main_cpu": spread([run.main_cpu for run in runs["untouched"]], 2),
            "disk_bytes": max(run.disk_bytes for some in runs.values() for run in some),
        }
    return result


def evaluate_ratios(bench: Bench) -> list[dict[str, Any]]:
    """Return every ratio, with the treatment of the batches that it applies to (`touch`)."""
    results = []
    for touch, ratio in RATIOS:
        rates = {name: by_touch[touch] for name, by_touch in bench.rates().items() if touch in by_touch}
        rates[FLOOR] = bench.floor
        results.append({**ratio.evaluate(rates), "touch": touch})
    return results


def summarise_scaling(bench: Bench) -> list[dict[str, Any]]:
    """Return patches and bytes per second by patch size and workers, and their share of memcpy by as many processes."""
    rows = []
    for patch in (64, 128, 192, 256):
        for workers in (1, 2):
            name = our_name("npy", "up", workers, patch)
            if name not in bench.runs:
                continue
            runs = bench.runs[name]["untouched"]
            gb_per_s = [rate(run) * 2 * 3 * patch**2 / 1e9 for run in runs]
            shares = [gb / copied for gb, copied in zip(gb_per_s, bench.memcpy[workers], strict=True)]
            rows.append(
                {
                    "patch_px": patch,
                    "workers": workers,
                    "patches_per_second": spread([rate(run) for run in runs], 0),
                    "gb_per_second": spread(gb_per_s, 2),
                    "of_memcpy": spread(shares, 2),
                }
            )
    return rows


def measure_start(scratch: Path, rounds: int, workers: int) -> dict[str, Any]:
    """Return seconds from process start to the first batch with 1,000 shards, beyond importing PyTorch alone."""
    photos, output = scratch / "tiny_photos", scratch / "tiny_shards"
    make_tiny_photos(photos)
    sizes = ("--size", 32, "--shard-bytes", "1KB", "--val-fraction", 0)
    timed_command(python_module("shardgen", "generate", "-i", photos, "-o", output, *sizes, "--auto"))
    shards = output / f"scale_{SCALE}x"
    task = Task(store=str(shards), patch=_TINY_PATCH_PX, batch=BATCH, workers=workers)
    command = python_module("benchmarks.stream_start", task.as_json())
    import_torch = [command[0], "-c", "import torch"]
    import_s, first_s = [], []
    for _ in range(rounds + 1):
        import_s.append(timed_command(import_torch)[0])
        first_s.append(timed_command(command)[0])
    # The first run is a warm-up.
    beyond = spread([first - alone for first, alone in zip(first_s[1:], import_s[1:], strict=True)])
    totals = json.loads((shards / "manifest.json").read_bytes())["totals"]
    rmtree(photos)
    return {
        "shards": totals["shards"],
        "workers": workers,
        "first_batch_s": spread(first_s[1:]),
        "import_torch_s": spread(import_s[1:]),
        "beyond_import_s": beyond,
        "target": f"below {_MAX_START_S:g} s beyond importing torch",
        "met": beyond["max"] < _MAX_START_S,
    }


def measure_memory(bench: Bench) -> dict[str, Any]:
    """Return this loader's memory after some epochs, by the number of workers."""
    found: dict[str, Any] = {}
    for case in (case for case in OUR_CASES if case.store == "npy" and case.input == "up"):
        command = python_module("benchmarks.stream_memory", bench.task(case).as_json(), *_EPOCHS)
        lines = timed_command(command)[1].splitlines()
        found[case.name] = [json.loads(line.removeprefix(MEMORY_MARK)) for line in lines if MEMORY_MARK in line]
    return found


def versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of packages in another environment."""
    code = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    return timed_json([python, "-c", code, *packages])


@benchmark
@photos_option
@click.option("--num-photos", type=click.IntRange(min=32), default=400, help="Number of photos to use.")
@rounds_option(5)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=3.0, help="Seconds in which batches are counted.")
@click.option("--only", multiple=True, metavar="TEXT", help="Only cases with TEXT in their names; repeatable.")
@click.option("--peers", metavar="PYTHON", help="Interpreter of the environment with the peers.")
@click.option("--ffcv", metavar="PYTHON", help="Interpreter of the environment with FFCV.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a PNG chart of the rates.")
@scratch_option("Folder for temporary files, about 10 GB for 400 photos.")
@output_option("stream.json")
def main(
    photos: Path | None,
    num_photos: int,
    rounds: int,
    seconds: float,
    only: tuple[str, ...],
    peers: str | None,
    ffcv: str | None,
    plot: Path | None,
    scratch: Path | None,
    output: Path,
) -> None:
    """Measure the rate at which patches reach the training process.

    \b
    Example:
      python -m benchmarks.bench_stream --photos photos --rounds 5 --seconds 2
    """
    all_photos = PhotoSet.of(photos)
    given = {PEERS: peers, FFCV: ffcv}
    pythons = {where: os.path.abspath(python) for where, python in given.items() if python}
    cases = [case for case in (*OUR_CASES, *PEER_CASES, *SCALING_CASES) if _is_wanted(case, only)]
    with scratch_folder(scratch) as folder:
        photo_set = all_photos.first(num_photos, folder / "photos")
        bench = Bench(folder, pythons, Window(seconds=seconds))
        for codec in CODECS:
            shards = make_shards(photo_set, folder / "stores" / codec, codec)
            if codec == "npy":
                count = write_triplets(shards, folder / "triplets")
        make_shards(photo_set, folder / "stores" / NO_UP, "npy", up=False)
        for case in (case for case in cases if case.where != OURS):
            bench.prepare(case)
        os.sync()
        run_rounds(bench, cases, rounds, CopyFloor(folder, folder / "triplets" / "hr.npy"))
        content: dict[str, Any] = {
            "photos": photo_set.describe(),
            "settings": {"triplets": count, "batch": BATCH, "rounds": rounds, "window": asdict(bench.window)},
            "versions": {where: versions(python, _PACKAGES[where]) for where, python in pythons.items()},
            "copy_floor_pairs_per_second": spread(bench.floor, 0),
            "memcpy_gb_per_second": {f"{n} processes": spread(rates) for n, rates in bench.memcpy.items()},
            "cases": summarise_cases(bench, cases),
            "ratios": evaluate_ratios(bench),
            "scaling": summarise_scaling(bench),
            "start": measure_start(folder, rounds, workers=2),
            "memory": measure_memory(bench),
        }
        command = "python -m benchmarks.bench_stream --photos DIR --peers PYTHON --ffcv PYTHON"
        write_result(output, f"{command} --rounds {rounds} --seconds {seconds:g}", folder, content)
    if plot is not None:
        draw_rates(plot, content["cases"])
    show(content)


def _is_wanted(case: Case, only: Sequence[str]) -> bool:
    return not only or any(text in case.name for text in only)


def show(content: Mapping[str, Any]) -> None:
    """Print the tables."""
    columns = ("case", "untouched, patches/s", "copied out, patches/s", "CPU of main process")
    print_table("Batches of 16 pairs of patches", columns, [_case_row(*item) for item in content["cases"].items()])
    print_table("Ratios", ("ratio", "target", "measured", ""), [ratio_row(ratio) for ratio in content["ratios"]])
    rows = [
        [
            f"{row['patch_px']} px, {row['workers']} workers",
            spread_text(row["patches_per_second"], 0),
            spread_text(row["gb_per_second"], 2),
            spread_text(row["of_memcpy"], 2),
        ]
        for row in content["scaling"]
    ]
    print_table("This loader, npy, up", ("patch", "patches/s", "GB/s", "of memcpy"), rows)
    memcpy = ", ".join(f"{name} {spread_text(rates, 1)}" for name, rates in content["memcpy_gb_per_second"].items())
    click.echo(f"memcpy, GB/s: {memcpy}")
    start = content["start"]
    beyond, importing = (spread_text(start[key], 2) for key in ("beyond_import_s", "import_torch_s"))
    click.echo(
        f"first batch with {start['shards']:,} shards: {beyond} s beyond importing torch ({importing} s): "
        f"{verdict(start['met'])}"
    )
    rows = [
        [f"{name}, {found['epochs']} epochs", *(f"{bytes_ / 1e6:.0f}" for bytes_ in _memory_bytes(found))]
        for name, several in content["memory"].items()
        for found in several
    ]
    print_table("Memory", ("MB", "main RSS", "main USS", "largest worker RSS", "USS", "all PSS"), rows)


def _memory_bytes(found: Mapping[str, Any]) -> tuple[int, ...]:
    main_process, worker = found["main"], found["largest_worker"]
    return main_process["rss"], main_process["uss"], worker["rss"], worker["uss"], found["all_pss"]


def _case_row(name: str, found: Mapping[str, Any]) -> list[str]:
    if "unavailable" in found:
        return [name, "not measured", "not measured", ""]
    rates = found["patches_per_second"]
    return [
        name,
        *(spread_text(rates[touch], 0) if touch in rates else "" for touch in TOUCHES),
        spread_text(found["main_cpu"], 2),
    ]


if __name__ == "__main__":
    main()
