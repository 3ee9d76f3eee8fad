"""Photos per second of the generator, against the bare floor and against what people use instead.

Method: every way in fresh processes, all ways in each round, every second round backwards; photos in the page cache;
`sync` before each run, so that no way pays for the dirty pages of the one before; output removed after each, which is
not timed; a warm-up on a few photos, which does not count. Each way has two clocks, and a ratio has the same clock on
both sides:

  command  the whole command, from its start to its end: interpreter, imports, listing, workers, last flush
  work     without the start-up: from before the workers are started until the last has ended. The generator's is
           `photos_per_second` in its processing_stats.json, and still holds its workers' start and imports; the
           docstrings of floor.py, loose_files.py and img2dataset_runs.py say what the others' hold.

Ways: (a) this generator as a user runs it, in each codec and with three scales; it flushes every shard to the disk
before it counts as made. (b) the bare floor (floor.py). (c) the script that people write (loose_files.py).
(d) img2dataset (img2dataset_runs.py).

Command: python -m benchmarks.bench_generate --photos DIR --rounds 5 --workers 2 --img2dataset PYTHON

Why the floor comes twice: what it writes to the page cache is not on the disk when its clock stops, and the generator's
shards are. The ratio to the one is the harder promise, the ratio to the other compares like with like.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import img2dataset_runs
from benchmarks.common import (
    RESULTS,
    PhotoSet,
    Run,
    RunFailedError,
    Way,
    alternate,
    folder_bytes,
    python_module,
    scratch_folder,
    timed_command,
)
from benchmarks.options import photos_option, scratch_option
from benchmarks.report import (
    Ratio,
    print_table,
    ratio_row,
    summarise_ratios,
    summarise_ways,
    way_row,
    write_result,
)
from shardgen.generate.run import STATS_NAME
from srshards.process.resources import available_cpus
from srshards.terminal.help import Command

ONE_SCALE, THREE_SCALES = (4,), (2, 3, 4)
_PHOTOS_IN_ONE_PROCESS = 150  # enough for a rate

_NO_BLAS_THREADS = {"OPENBLAS_NUM_THREADS": "1"}  # NumPy would start a thread per core that nobody needs

RATIOS = (
    Ratio("npy / floor, 4x", "npy 4x", "floor 4x", at_least=0.85),
    Ratio("npy / floor+fsync, 4x", "npy 4x", "floor+fsync 4x", at_least=0.85),
    Ratio("npy / floor, 2 3 4x", "npy 2,3,4x", "floor 2,3,4x", at_least=0.85),
    Ratio("npy / floor+fsync, 2 3 4x", "npy 2,3,4x", "floor+fsync 2,3,4x", at_least=0.85),
    Ratio("npy / pooled PNG script", "npy 4x", "PNG script, pool", at_least=2),
    Ratio("npy / img2dataset PNG", "npy 4x", "img2dataset png", at_least=3),
    Ratio("time of three scales / of one", "npy 4x", "npy 2,3,4x", below=2),
    Ratio("npy / floor that writes nothing, 4x", "npy 4x", "floor, no write 4x"),
    Ratio("npy / OpenCV floor, 4x", "npy 4x", "OpenCV floor 4x"),
    Ratio("png / floor with OpenCV's PNG, 4x", "png 4x", "floor, PNG 4x"),
    Ratio("png / pooled PNG script", "png 4x", "PNG script, pool"),
    Ratio("webp / pooled PNG script", "webp 4x", "PNG script, pool"),
    Ratio("png / img2dataset PNG", "png 4x", "img2dataset png"),
    Ratio("npy / img2dataset stored PNG", "npy 4x", "img2dataset png, stored"),
    Ratio("npy / img2dataset JPEG", "npy 4x", "img2dataset jpg"),
)


def all_ways(workers: int, img2dataset: str | None) -> list[Way]:
    """Every way, in the order of the first round."""
    return [
        *(_generator(codec, ONE_SCALE, workers) for codec in ("npy", "png", "webp")),
        _generator("npy", THREE_SCALES, workers),
        *(
            _floor(name, scales, workers, f"--sink={sink}")
            for scales in (ONE_SCALE, THREE_SCALES)
            for name, sink in (("floor", "page-cache"), ("floor+fsync", "fsync"), ("floor, no write", "none"))
        ),
        _floor("floor, PNG", ONE_SCALE, workers, "--codec=png"),
        _floor("OpenCV floor", ONE_SCALE, workers, "--decoder=opencv"),
        _script("PNG script, one process", "--workers=0", f"--limit={_PHOTOS_IN_ONE_PROCESS}"),
        _script("PNG script, pool", f"--workers={workers}"),
        img2dataset_runs.way("img2dataset png", img2dataset, "png", 1, workers),
        img2dataset_runs.way("img2dataset png, stored", img2dataset, "png", 0, workers),
        img2dataset_runs.way("img2dataset jpg", img2dataset, "jpg", 95, workers),
    ]


def _named(name: str, scales: tuple[int, ...]) -> str:
    return f"{name} {','.join(map(str, scales))}x"


def _generator(codec: str, scales: tuple[int, ...], workers: int) -> Way:
    options = ["--codec", codec, "--workers", workers, "--auto", "--scales", *scales]
    what = "python -m shardgen generate " + " ".join(map(str, options))
    return Way(_named(codec, scales), what, functools.partial(_run_generator, options))


def _run_generator(options: Sequence[object], photos: PhotoSet, output: Path) -> Run:
    command_s, _ = timed_command(python_module("shardgen", "generate", "-i", photos.root, "-o", output, *options))
    stats = json.loads((output / STATS_NAME).read_bytes())
    if stats["total_processed"] != len(photos.paths):
        raise RunFailedError(f"{stats['total_processed']} of {len(photos.paths)} photos processed")
    return Run(len(photos.paths), command_s, stats["wall_time"], folder_bytes(output), stats["stage_seconds"])


def _floor(name: str, scales: tuple[int, ...], workers: int, *options: str) -> Way:
    args = ["--workers", workers, "--scales", *scales, *options]
    return _module_way(_named(name, scales), "benchmarks.floor", args)


def _script(name: str, *options: str) -> Way:
    return _module_way(name, "benchmarks.loose_files", options)


def _module_way(name: str, module: str, options: Sequence[object]) -> Way:
    what = f"python -m {module} " + " ".join(map(str, options))
    return Way(name, what, functools.partial(_run_module, module, options))


def _run_module(module: str, options: Sequence[object], photos: PhotoSet, output: Path) -> Run:
    args = python_module(module, "--photos", photos.root, "--output", output, *options)
    command_s, printed = timed_command(args, _NO_BLAS_THREADS)
    said = json.loads(printed)
    return Run(said["photos"], command_s, said["work_s"], folder_bytes(output), said["seconds"])


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@photos_option
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="How often each way runs.")
@click.option("--workers", type=click.IntRange(min=1), default=available_cpus, help="Processes of every way.")
@scratch_option("Where to write; the disk there is part of what is measured.")
@click.option("--img2dataset", metavar="PYTHON", help="Interpreter of an environment with img2dataset.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=RESULTS / "generate.json",
    help="The result.",
)
def main(
    photos: Path | None, rounds: int, workers: int, scratch: Path | None, img2dataset: str | None, output: Path
) -> None:
    """Time the generator, the bare floor, the usual script and img2dataset on the same photos.

    \b
    Example:
      python -m benchmarks.bench_generate --photos photos --rounds 3 --workers 2
    """
    photo_set = PhotoSet.of(photos)
    ways = all_ways(workers, img2dataset)
    with scratch_folder(scratch) as folder:
        results = alternate(ways, photo_set, folder, rounds)
        content = {
            "photos": photo_set.describe(),
            "settings": {"rounds": rounds, "workers": workers, "size_px": 512, "img2dataset": _version(img2dataset)},
            "ways": summarise_ways(ways, results),
            "ratios": summarise_ratios(RATIOS, results),
        }
        command = f"python -m benchmarks.bench_generate --photos DIR --rounds {rounds} --workers {workers}"
        write_result(output, command + (" --img2dataset PYTHON" if img2dataset else ""), folder, content)
    _print_tables(content)


def _print_tables(content: Mapping[str, Any]) -> None:
    rows = [way_row(name, summary) for name, summary in content["ways"].items()]
    print_table("Photos per second: median (min-max)", ("way", "whole command", "without start-up", "MB/photo"), rows)
    columns = ("ratio of photos/s", "wanted", "whole command", "without start-up", "")
    print_table("Ratios within rounds: median (min-max)", columns, [ratio_row(ratio) for ratio in content["ratios"]])
    for name, summary in content["ways"].items():
        if "unavailable" in summary:
            click.echo(f"{name} was not measured: {summary['unavailable']}")


def _version(img2dataset: str | None) -> str:
    try:
        return img2dataset_runs.version(img2dataset)
    except RunFailedError as error:
        return str(error)


if __name__ == "__main__":
    main()
