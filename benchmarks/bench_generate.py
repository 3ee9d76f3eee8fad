"""Photos per second of the generator, against a bare floor and against common alternatives.

Method: fresh processes, all cases once per round, order reversed in every second round; photos in the page cache;
`sync` before each run, so that no case is slowed down by another's dirty pages; the output is deleted after each run,
untimed; a warm-up on a few photos is not recorded. Every case has two clocks, and a ratio has the same clock on both
sides:

  command  the whole command: interpreter, imports, listing, workers, final flush
  work     without start-up: from just before the workers are started until the last has exited. For the generator this
           is derived from `wall_time` in processing_stats.json, and includes the start and the imports of its workers;
           the docstrings of floor.py, loose_files.py and img2dataset_runs.py say what the others include.

Cases: (a) this generator as users run it, with each codec and with three scales; it flushes every shard to disk.
(b) the bare floor (floor.py). (c) the usual script (loose_files.py). (d) img2dataset (img2dataset_runs.py).

    python -m benchmarks.bench_generate --photos DIR --rounds 5 --workers 2 --img2dataset PYTHON

Two floors: the data that the first one writes is still in the page cache when its clock stops, whereas the generator's
shards are on disk, so the ratio to it is stricter; the flushed floor does the same work as the generator.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import img2dataset_runs
from benchmarks.common import PhotoSet, RunFailedError, folder_bytes, python_module, scratch_folder, timed_command
from benchmarks.generate_rounds import Case, Run, alternate, case_row, clocks_row, evaluate_ratio, summarise_cases
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option, workers_option
from benchmarks.report import Ratio, print_table, write_result
from shardgen.generate.run import STATS_NAME

ONE_SCALE, THREE_SCALES = (4,), (2, 3, 4)
_PHOTOS_IN_ONE_PROCESS = 150

_NO_BLAS_THREADS = {"OPENBLAS_NUM_THREADS": "1"}  # NumPy would start one thread per core

RATIOS = (
    Ratio("npy / floor, 4x", "npy 4x", ("floor 4x",), at_least=0.85),
    Ratio("npy / floor+fsync, 4x", "npy 4x", ("floor+fsync 4x",), at_least=0.85),
    Ratio("npy / floor, 2 3 4x", "npy 2,3,4x", ("floor 2,3,4x",), at_least=0.85),
    Ratio("npy / floor+fsync, 2 3 4x", "npy 2,3,4x", ("floor+fsync 2,3,4x",), at_least=0.85),
    Ratio("npy / pooled PNG script", "npy 4x", ("PNG script, pool",), at_least=2),
    Ratio("npy / img2dataset PNG", "npy 4x", ("img2dataset png",), at_least=3),
    Ratio("time of three scales / of one", "npy 4x", ("npy 2,3,4x",), below=2),
    Ratio("npy / floor that writes nothing, 4x", "npy 4x", ("floor, no write 4x",)),
    Ratio("npy / OpenCV floor, 4x", "npy 4x", ("OpenCV floor 4x",)),
    Ratio("png / floor with OpenCV's PNG, 4x", "png 4x", ("floor, PNG 4x",)),
    Ratio("png / pooled PNG script", "png 4x", ("PNG script, pool",)),
    Ratio("webp / pooled PNG script", "webp 4x", ("PNG script, pool",)),
    Ratio("png / img2dataset PNG", "png 4x", ("img2dataset png",)),
    Ratio("npy / img2dataset stored PNG", "npy 4x", ("img2dataset png, stored",)),
    Ratio("npy / img2dataset JPEG", "npy 4x", ("img2dataset jpg",)),
)


def all_cases(workers: int, img2dataset: str | None) -> list[Case]:
    """Return every case in the order of the first round."""
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
        img2dataset_runs.case("img2dataset png", img2dataset, "png", 1, workers),
        img2dataset_runs.case("img2dataset png, stored", img2dataset, "png", 0, workers),
        img2dataset_runs.case("img2dataset jpg", img2dataset, "jpg", 95, workers),
    ]


def _named(name: str, scales: tuple[int, ...]) -> str:
    return f"{name} {','.join(map(str, scales))}x"


def _generator(codec: str, scales: tuple[int, ...], workers: int) -> Case:
    options = ["--codec", codec, "--workers", workers, "--auto", "--scales", *scales]
    what = "python -m shardgen generate " + " ".join(map(str, options))
    return Case(_named(codec, scales), what, functools.partial(_run_generator, options))


def _run_generator(options: Sequence[object], photos: PhotoSet, output: Path) -> Run:
    command_s, _ = timed_command(python_module("shardgen", "generate", "-i", photos.root, "-o", output, *options))
    stats = json.loads((output / STATS_NAME).read_bytes())
    if stats["total_processed"] != len(photos.paths):
        raise RunFailedError(f"{stats['total_processed']} of {len(photos.paths)} photos processed")
    return Run(len(photos.paths), command_s, stats["wall_time"], folder_bytes(output), stats["stage_seconds"])


def _floor(name: str, scales: tuple[int, ...], workers: int, *options: str) -> Case:
    args = ["--workers", workers, "--scales", *scales, *options]
    return _module_case(_named(name, scales), "benchmarks.floor", args)


def _script(name: str, *options: str) -> Case:
    return _module_case(name, "benchmarks.loose_files", options)


def _module_case(name: str, module: str, options: Sequence[object]) -> Case:
    what = f"python -m {module} " + " ".join(map(str, options))
    return Case(name, what, functools.partial(_run_module, module, options))


def _run_module(module: str, options: Sequence[object], photos: PhotoSet, output: Path) -> Run:
    args = python_module(module, "--photos", photos.root, "--output", output, *options)
    command_s, printed = timed_command(args, _NO_BLAS_THREADS)
    found = json.loads(printed)
    return Run(found["photos"], command_s, found["work_s"], folder_bytes(output), found["seconds"])


@benchmark
@photos_option
@rounds_option(5)
@workers_option("Processes of every case.", minimum=1)
@scratch_option("Folder for temporary files; its disk affects the results.")
@click.option("--img2dataset", metavar="PYTHON", help="Interpreter of an environment with img2dataset.")
@output_option("generate.json")
def main(
    photos: Path | None, rounds: int, workers: int, scratch: Path | None, img2dataset: str | None, output: Path
) -> None:
    """Time the generator, the bare floor, the usual script, and img2dataset on the same photos.

    \b
    Example:
      python -m benchmarks.bench_generate --photos photos --rounds 3 --workers 2
    """
    photo_set = PhotoSet.of(photos)
    cases = all_cases(workers, img2dataset)
    with scratch_folder(scratch) as folder:
        results = alternate(cases, photo_set, folder, rounds)
        content = {
            "photos": photo_set.describe(),
            "settings": {"rounds": rounds, "workers": workers, "size_px": 512, "img2dataset": _version(img2dataset)},
            "cases": summarise_cases(cases, results),
            "ratios": [evaluate_ratio(ratio, results) for ratio in RATIOS],
        }
        command = f"python -m benchmarks.bench_generate --photos DIR --rounds {rounds} --workers {workers}"
        write_result(output, command + (" --img2dataset PYTHON" if img2dataset else ""), folder, content)
    _print_tables(content)


def _print_tables(content: Mapping[str, Any]) -> None:
    rows = [case_row(name, summary) for name, summary in content["cases"].items()]
    print_table("Photos per second: median (min-max)", ("case", "whole command", "without start-up", "MB/photo"), rows)
    columns = ("ratio of photos/s", "target", "whole command", "without start-up", "")
    print_table("Ratios within rounds: median (min-max)", columns, [clocks_row(ratio) for ratio in content["ratios"]])
    for name, summary in content["cases"].items():
        if "unavailable" in summary:
            click.echo(f"{name} was not measured: {summary['unavailable']}")


def _version(img2dataset: str | None) -> str:
    try:
        return img2dataset_runs.version(img2dataset)
    except RunFailedError as error:
        return str(error)


if __name__ == "__main__":
    main()
