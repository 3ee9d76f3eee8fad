"""How fast patches reach the training process: this project's loader, and what else people use.

Method: the generator makes 4x triplets of 512 px from `--num-photos` photos, and every way gets the same ones in a
store of its own, written as its documentation recommends (`peers/`, one module each). All deliver batches of 16 aligned
192 px patches (HR, up), in random order, cut at random places, neither flipped nor turned by the peers. Each way runs
in a fresh process, all once per round, every second round in reverse order. A run reads its store (so the page cache
has it), throws away what comes in the first second and the first 16 batches, and then counts batches for `--seconds`
and at least 24 batches, between two moments at which one was taken. It does so twice, in two processes:

  untouched   the batch is taken and dropped
  copied      the training process copies each batch into the same two arrays

The CPU of the main process is that of itself and its threads per second of the window, from the untouched run. The
bytes that were read from a disk meanwhile are in the result: above 0, the page cache did not hold the store.

Also: memcpy of this machine in each round; this loader's patch sizes with 1 and 2 workers against it; the time from the
start of a process to its first batch with 1,000 shards; this loader's memory after 1, 10 and 50 epochs.

    python -m benchmarks.bench_stream --photos DIR --peers PYTHON --ffcv PYTHON --plot stream.png

`peers/README.md` says how to make the two environments. A way whose environment is not there, or that fails, is in the
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
    python_module,
    say,
    scratch_folder,
    timed_command,
)
from benchmarks.options import output_option, photos_option, scratch_option
from benchmarks.peers.task import SCALE, Task
from benchmarks.report import print_table, spread, write_result
from benchmarks.stream_measure import Counted, Window
from benchmarks.stream_memcpy import memcpy_rate
from benchmarks.stream_memory import MARK as MEMORY_MARK
from benchmarks.stream_plot import draw_rates
from benchmarks.stream_run import result_in
from benchmarks.stream_stores import CODECS, make_shards, write_triplets
from benchmarks.stream_ways import (
    FFCV,
    OUR_WAYS,
    OURS,
    PEER_WAYS,
    PEERS,
    RATIOS,
    SCALING_WAYS,
    TOUCHES,
    Way,
    judge,
    our_name,
)
from srshards.terminal.help import Command

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
    """What the runs need to know, and what they found: by way and touch, the windows in the order of the rounds."""

    scratch: Path
    pythons: Mapping[str, str]
    window: Window
    runs: dict[str, dict[str, list[Counted]]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)  # of single runs, by way
    memcpy: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: []})

    def task(self, way: Way) -> Task:
        """What the way is told."""
        store = self.scratch / "stores" / way.store
        if way.where == OURS:
            store = store / f"scale_{SCALE}x"
        return Task(
            store=str(store),
            triplets=str(self.scratch / "triplets"),
            photos=str(self.scratch / "photos"),
            variant=way.variant,
            patch=way.patch,
            batch=BATCH,
            workers=way.workers,
            input=way.input,
            crops=way.crops,
        )

    def command(self, way: Way, *more: str) -> list[str]:
        """The command that runs the way in its environment."""
        python = self.pythons.get(way.where, sys.executable)
        return [python, "-m", "benchmarks.stream_run", way.module, self.task(way).as_json(), *more]

    def prepare(self, way: Way) -> None:
        """Write the way's store; note why when that does not work."""
        if way.where in (PEERS, FFCV) and way.where not in self.pythons:
            self.unavailable[way.name] = f"no --{way.where} PYTHON was given"
            return
        try:
            timed_command(self.command(way))
        except RunFailedError as error:
            self.unavailable[way.name] = str(error)
        say(f"prepared  {way.name}: {self.unavailable.get(way.name, 'works')}")

    def measure(self, way: Way, touch: str) -> None:
        """One run of a way, which is tried once more when it fails, and noted; a way that fails twice is out."""
        for _ in range(2):
            if way.name in self.unavailable:
                return
            try:
                counted = result_in(timed_command(self.command(way, json.dumps(asdict(self.window)), touch))[1])
            except (RunFailedError, ValueError) as error:
                self.failures.setdefault(way.name, []).append(str(error))
                say(f"          {way.name}, {touch}: {error}")
            else:
                self.runs.setdefault(way.name, {}).setdefault(touch, []).append(counted)
                say(f"          {way.name}, {touch}: {rate(counted):,.0f} patches/s, CPU {counted.main_cpu:.2f}")
                return
        self.unavailable[way.name] = self.failures[way.name][-1]
        self.runs.pop(way.name, None)

    def rates(self) -> dict[str, dict[str, list[float]]]:
        """Patches per second by way and touch, in the order of the rounds."""
        return {
            name: {touch: [rate(run) for run in runs] for touch, runs in by_touch.items()}
            for name, by_touch in self.runs.items()
        }


def rate(counted: Counted) -> float:
    """Patches per second."""
    return counted.batches * BATCH / counted.seconds


def run_rounds(bench: Bench, ways: Sequence[Way], rounds: int) -> None:
    """Every way once per round, with both touches (the patch sizes of the scaling table untouched only)."""
    only_untouched = {way.name for way in SCALING_WAYS}
    for number in range(rounds):
        say(f"round {number + 1}/{rounds}")
        for processes, rates in bench.memcpy.items():
            rates.append(memcpy_rate(processes))
        for way in ways if number % 2 == 0 else reversed(ways):
            for touch in TOUCHES[:1] if way.name in only_untouched else TOUCHES:
                bench.measure(way, touch)


def summarise_ways(bench: Bench, ways: Sequence[Way]) -> dict[str, Any]:
    """By way: patches/s with both touches, CPU of the main process, bytes from the disk; or why there is nothing."""
    result: dict[str, Any] = {}
    for way in ways:
        heading: dict[str, Any] = {"what": way.what, "input": way.input, "patch_px": way.patch, "workers": way.workers}
        if way.name in bench.failures:
            heading["failures"] = bench.failures[way.name]
        if way.name in bench.unavailable:
            result[way.name] = {**heading, "unavailable": bench.unavailable[way.name]}
            continue
        runs = bench.runs[way.name]
        result[way.name] = {
            **heading,
            "patches_per_second": {touch: spread([rate(run) for run in some], 0) for touch, some in runs.items()},
            "main_cpu": spread([run.main_cpu for run in runs["untouched"]], 2),
            "disk_bytes": max(run.disk_bytes for some in runs.values() for run in some),
        }
    return result


def summarise_scaling(bench: Bench) -> list[dict[str, Any]]:
    """Patches and bytes per second by patch size and workers, and what share of as many processes' memcpy that is."""
    rows = []
    for patch in (64, 128, 192, 256):
        for workers in (1, 2):
            name = our_name("npy", "up", workers, patch)
            if name not in bench.runs:
                continue
            runs = bench.runs[name]["untouched"]
            gb_per_s = [rate(run) * 2 * 3 * patch**2 / 1e9 for run in runs]
            shares = [each / of for each, of in zip(gb_per_s, bench.memcpy[workers], strict=True)]
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
    """Seconds from the start of a process to its first batch with 1,000 shards, beyond importing PyTorch alone."""
    photos, output = scratch / "tiny_photos", scratch / "tiny_shards"
    make_tiny_photos(photos)
    sizes = ("--size", 32, "--shard-bytes", "1KB", "--val-fraction", 0)
    timed_command(python_module("shardgen", "generate", "-i", photos, "-o", output, *sizes, "--auto"))
    shards = output / f"scale_{SCALE}x"
    task = Task(store=str(shards), patch=_TINY_PATCH_PX, batch=BATCH, workers=workers)
    python = python_module("benchmarks.stream_start", task.as_json())
    alone = [python[0], "-c", "import torch"]
    import_s, first_s = [], []
    for _ in range(rounds + 1):
        import_s.append(timed_command(alone)[0])
        first_s.append(timed_command(python)[0])
    beyond = spread([first - alone for first, alone in zip(first_s[1:], import_s[1:], strict=True)])  # the first: warm
    totals = json.loads((shards / "manifest.json").read_bytes())["totals"]
    rmtree(photos)
    return {
        "shards": totals["shards"],
        "workers": workers,
        "first_batch_s": spread(first_s[1:]),
        "import_torch_s": spread(import_s[1:]),
        "beyond_import_s": beyond,
        "wanted": f"below {_MAX_START_S:g} s beyond importing torch",
        "met": beyond["max"] < _MAX_START_S,
    }


def measure_memory(bench: Bench) -> dict[str, Any]:
    """This loader's memory after some epochs, by the number of workers."""
    found: dict[str, Any] = {}
    for way in (way for way in OUR_WAYS if way.store == "npy" and way.input == "up"):
        command = python_module("benchmarks.stream_memory", bench.task(way).as_json(), *_EPOCHS)
        lines = timed_command(command)[1].splitlines()
        found[way.name] = [json.loads(line.removeprefix(MEMORY_MARK)) for line in lines if MEMORY_MARK in line]
    return found


def versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    """The versions of packages in another environment."""
    code = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    found: dict[str, str] = json.loads(timed_command([python, "-c", code, *packages])[1])
    return found


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@photos_option
@click.option("--num-photos", type=click.IntRange(min=32), default=400, help="How many of them.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="How often each way runs.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=3.0, help="How long batches are counted.")
@click.option("--only", multiple=True, metavar="TEXT", help="Ways with TEXT in their names; may be repeated.")
@click.option("--peers", metavar="PYTHON", help="Interpreter of the environment with the peers.")
@click.option("--ffcv", metavar="PYTHON", help="Interpreter of the environment with FFCV.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="A PNG of the rates, to be written.")
@scratch_option("Where to write, about 10 GB for 400 photos.")
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
    """Measure how fast patches reach the training process.

    \b
    Example:
      python -m benchmarks.bench_stream --photos photos --rounds 5 --seconds 2
    """
    all_photos = PhotoSet.of(photos)
    given = {PEERS: peers, FFCV: ffcv}
    pythons = {where: os.path.abspath(python) for where, python in given.items() if python}
    ways = [way for way in (*OUR_WAYS, *PEER_WAYS, *SCALING_WAYS) if _is_wanted(way, only)]
    try:
        with scratch_folder(scratch) as folder:
            photo_set = all_photos.first(num_photos, folder / "photos")
            bench = Bench(folder, pythons, Window(seconds=seconds))
            for codec in CODECS:
                shards = make_shards(photo_set, folder / "stores" / codec, codec)
                if codec == "npy":
                    count = write_triplets(shards, folder / "triplets")
            for way in (way for way in ways if way.where != OURS):
                bench.prepare(way)
            os.sync()
            run_rounds(bench, ways, rounds)
            content: dict[str, Any] = {
                "photos": photo_set.describe(),
                "settings": {"triplets": count, "batch": BATCH, "rounds": rounds, "window": asdict(bench.window)},
                "versions": {where: versions(python, _PACKAGES[where]) for where, python in pythons.items()},
                "memcpy_gb_per_second": {f"{n} processes": spread(rates) for n, rates in bench.memcpy.items()},
                "ways": summarise_ways(bench, ways),
                "ratios": [judge(ratio, bench.rates()) for ratio in RATIOS],
                "scaling": summarise_scaling(bench),
                "start": measure_start(folder, rounds, workers=2),
                "memory": measure_memory(bench),
            }
            command = "python -m benchmarks.bench_stream --photos DIR --peers PYTHON --ffcv PYTHON"
            write_result(output, f"{command} --rounds {rounds} --seconds {seconds:g}", folder, content)
    except RunFailedError as error:
        raise click.ClickException(str(error)) from error
    if plot is not None:
        draw_rates(plot, content["ways"])
    show(content)


def _is_wanted(way: Way, only: Sequence[str]) -> bool:
    return not only or any(text in way.name for text in only)


def show(content: Mapping[str, Any]) -> None:
    """The tables on standard output."""
    columns = ("way", "untouched, patches/s", "copied out, patches/s", "CPU of main process")
    print_table("Batches of 16 pairs of patches", columns, [_way_row(*item) for item in content["ways"].items()])
    print_table("Ratios", ("ratio", "wanted", "found", ""), [_ratio_row(ratio) for ratio in content["ratios"]])
    rows = [
        [
            f"{row['patch_px']} px, {row['workers']} workers",
            _text(row["patches_per_second"], 0),
            _text(row["gb_per_second"], 2),
            _text(row["of_memcpy"], 2),
        ]
        for row in content["scaling"]
    ]
    print_table("This loader, npy, up", ("patch", "patches/s", "GB/s", "of memcpy"), rows)
    memcpy = ", ".join(f"{name} {_text(rates, 1)}" for name, rates in content["memcpy_gb_per_second"].items())
    click.echo(f"memcpy, GB/s: {memcpy}")
    start = content["start"]
    verdict = "met" if start["met"] else "MISSED"
    click.echo(
        f"first batch with {start['shards']:,} shards: {_text(start['beyond_import_s'], 2)} s beyond importing torch "
        f"({_text(start['import_torch_s'], 2)} s): {verdict}"
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


def _way_row(name: str, found: Mapping[str, Any]) -> list[str]:
    if "unavailable" in found:
        return [name, "not measured", "not measured", ""]
    rates = found["patches_per_second"]
    return [name, *(_text(rates[touch], 0) if touch in rates else "" for touch in TOUCHES), _text(found["main_cpu"], 2)]


def _ratio_row(ratio: Mapping[str, Any]) -> list[str]:
    if "unavailable" in ratio:
        return [ratio["name"], ratio["wanted"], f"not measured: {ratio['unavailable']}", ""]
    return [ratio["name"], ratio["wanted"], _text(ratio["ratio"], 2), "met" if ratio["met"] else "MISSED"]


def _text(values: Mapping[str, Any], digits: int) -> str:
    return f"{values['median']:,.{digits}f} ({values['min']:,.{digits}f}-{values['max']:,.{digits}f})"


if __name__ == "__main__":
    main()
