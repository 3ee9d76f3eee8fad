"""PSNR-Y of short trainings by peak rate, warm-up, shape of the schedule, initial weights, clipping, EMA and precision.

Method: every combination of the values of `--grid` is trained in turn by the trainer's own loader and step on 4x shards
of the photos (tiles of 256 px, LR by `matlab`), then evaluated on the photos of `--holdout`, of which the shards have
none. Results count steps, so they do not depend on the load of the machine: with equal threads they are equal.

    python -m benchmarks.bench_schedule --photos DIR --holdout DIR --work FOLDER \\
        --grid "steps=300 lr=0.002,0.004 warmup=30,90 seed=0,1,2"

Each run is a line of FOLDER/runs.jsonl; combinations that have one are not run again. The result has all of them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, get_args, get_type_hints

import click

from benchmarks.common import PhotoSet, python_module, say, timed_command
from benchmarks.options import benchmark, holdout_option, output_option, photos_option
from benchmarks.report import print_table, write_result
from benchmarks.schedule_run import SCALE, Case, psnr_y_of, run
from srshards.process.allocator import keep_freed_memory
from srshards.shards.opening import open_shards
from trainer.evaluation.pairs import Pair, photo_pairs
from trainer.training.device import limit_threads

_TILE_PX = 256
_NONE = "default"


def cases(grid: str) -> Iterator[Case]:
    """Yield all combinations of `name=value,value ...`. UsageError for an unknown name or a value of another type."""
    kinds = get_type_hints(Case)
    values: dict[str, list[Any]] = {}
    for part in grid.split():
        name, _, text = part.partition("=")
        if name not in kinds or not text:
            raise click.UsageError(f"--grid: {part}: expected name=value,value with one of {', '.join(kinds)}")
        try:
            values[name] = [_value(kinds[name], one) for one in text.split(",")]
        except ValueError:
            raise click.UsageError(f"--grid: {part}: expected {_base(kinds[name]).__name__} values") from None
    for chosen in product(*values.values()):
        yield Case(**dict(zip(values, chosen, strict=True)))


def _value(kind: Any, text: str) -> Any:
    return None if text == _NONE and get_args(kind) else _base(kind)(text)


def _base(kind: Any) -> Any:
    """Return T for T and for T | None."""
    return (get_args(kind) or (kind,))[0]


def _make_shards(photos: Path | None, work: Path) -> Path:
    folder = work / "shards" / f"scale_{SCALE}x"
    if not (folder / "manifest.json").exists():
        what = ("-i", PhotoSet.of(photos).root, "-o", folder.parent, "-s", SCALE, "--fit", "tile", "--size", _TILE_PX)
        timed_command(python_module("shardgen", "generate", *what, "--method", "matlab", "--no-up", "--auto"))
    return folder


def _read(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in runs.read_text().splitlines()] if runs.exists() else []


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per combination of settings: seeds, and mean and standard deviation over them in dB."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for one in runs:
        grouped.setdefault(Case(**one["case"]).key, []).append(one)
    return [{"settings": key, **_over_seeds(of_seeds)} for key, of_seeds in grouped.items()]


def _over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = runs[0]["psnr_y"]
    columns = {name: [one["psnr_y"][name] for one in runs] for name in names}
    quarters = zip(*(one["psnr_y_of_quarters"] for one in runs), strict=True)
    return {
        "lr": runs[0]["lr"],
        "warmup": runs[0]["warmup"],
        "seeds": sorted(one["case"]["seed"] for one in runs),
        "psnr_y": {
            name: {"mean": round(mean(of_seeds), 3), "deviation": round(stdev(of_seeds), 3) if len(runs) > 1 else None}
            for name, of_seeds in columns.items()
        },
        "psnr_y_of_quarters": [round(mean(of_seeds), 3) for of_seeds in quarters],
    }


def _bicubic(pairs: Sequence[Pair]) -> float:
    return round(mean(psnr_y_of(pair.bicubic(), pair) for pair in pairs), 3)


def _rows(summary: Sequence[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for one in summary:
        found = one["psnr_y"]["ema"]
        spread = "" if found["deviation"] is None else f" ± {found['deviation']:.3f}"
        quarters = " ".join(f"{value:.2f}" for value in one["psnr_y_of_quarters"])
        weights = f"{one['psnr_y']['weights']['mean']:.3f}"
        rows.append([one["settings"], str(one["warmup"]), f"{found['mean']:.3f}{spread}", weights, quarters])
    return rows


@benchmark
@photos_option
@holdout_option
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for shards and results; kept.")
@click.option("--grid", "grids", multiple=True, help="Settings to combine, e.g. 'steps=300 lr=0.002,0.004 seed=0,1,2'.")
@output_option("schedule.json")
def main(photos: Path | None, holdout: Path, work: Path, grids: tuple[str, ...], output: Path) -> None:
    """Compare schedules, rates and other settings by short trainings.

    \b
    Example:
      python -m benchmarks.bench_schedule --photos photos --holdout other --work work --grid "steps=300 lr=0.002,0.004"
    """
    limit_threads()
    keep_freed_memory()
    wanted = [case for grid in grids for case in cases(grid)]
    shards = open_shards(_make_shards(photos, work))
    pairs = list(photo_pairs(holdout, SCALE, upsampled=False))
    path = work / "runs.jsonl"
    done = {Case(**one["case"]) for one in _read(path)}
    for number, case in enumerate(wanted):
        if case in done:
            continue
        found = run(case, shards, pairs)
        with path.open("a") as file:
            file.write(json.dumps({"case": asdict(case), **found}) + "\n")
        say(f"{number + 1}/{len(wanted)}  {case.key} seed={case.seed}: {found['psnr_y']}")
    runs = _read(path)
    summary = summarise(runs)
    settings = {"scale": SCALE, "hr_px": _TILE_PX, "holdout": len(pairs), "bicubic_psnr_y": _bicubic(pairs)}
    command = "python -m benchmarks.bench_schedule --photos DIR --holdout DIR --work FOLDER --grid ..."
    write_result(output, command, work, {"settings": settings, "summary": summary, "runs": runs})
    columns = ("settings", "warm-up", "PSNR-Y of EMA, dB", "of weights", "EMA after each quarter")
    print_table(f"bicubic: {settings['bicubic_psnr_y']:.3f} dB", columns, _rows(summary))


if __name__ == "__main__":
    main()
