"""Quality of networks that are trained from scratch for equal CPU times, with the default settings.

Method: 4x shards of the photos, HR of 512 px, LR by MATLAB's bicubic; those of `--holdout` are the validation split.
Each network is trained by the public command with its defaults, a seed of 0, and as many steps as fit into the CPU
time: its budget divided by the CPU time of a step, which is measured first, on repeated noise (cpu_step_run.py). So the
number of steps depends on the machine, but not on what else runs during a training. PSNR-Y and SSIM-Y are those of the
last weights (EMA) on the photos of `--holdout`. `ultra_lite` is trained with three seeds: differences of the size of
their spread are noise. `compact_super_ultra` is the same network, trained at a lower rate.

    python -m benchmarks.bench_networks --photos DIR --holdout DIR --work FOLDER

Takes ten CPU minutes for each of seven trainings, and about five for the rest; best on an otherwise idle machine. If it
is interrupted, the same command goes on: finished measurements and trainings in FOLDER are kept. It also writes the
table in docs/reference/networks.md.
"""

import json
import resource
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

import srshards
from benchmarks.common import REPOSITORY, RESULTS, PhotoSet, python_module, say, timed_command, timed_json
from benchmarks.options import benchmark, holdout_option, output_option, photos_option
from benchmarks.report import print_table, write_result
from srshards.storage.files import write_atomically
from trainer.models import network_spec, num_parameters
from trainer.training.config import TrainConfig

SEEDS = {"ultra_lite": (0, 1, 2), "lite": (0,), "compact_super_ultra": (0,), "span_s": (0,), "realplksr_tiny": (0,)}
PAGE = REPOSITORY / "docs/reference/networks.md"
BEGIN, END = "<!-- begin: table of benchmarks/bench_networks.py -->\n", "<!-- end -->\n"
_COLUMNS = {"patches_per_s": 1, "psnr_y": 2, "ssim_y": 4}  # decimals
_RESULT = "networks.json"
_SCALE, _BATCH = 4, TrainConfig.batch_size
_LIMIT_S = 3 * 3600.0  # of a training, on a busy machine
_PROBE_STEPS, _PROBE_CPU_S = 2, 10.0  # of the first measurement; the second, of fast networks, takes longer


def make_shards(photos: PhotoSet, holdout: Path, work: Path) -> Path:
    """Generate the shards unless they exist; return their folder."""
    what = ("-i", photos.root, "--val", holdout, "-o", work / "shards", "-s", _SCALE)
    timed_command(python_module("shardgen", "generate", *what, "--method", "matlab", "--no-up", "--auto"))
    return work / "shards" / f"scale_{_SCALE}x"


def step_cpu_s(model: str, work: Path) -> float:
    """Return the CPU time of a training step, measured once per work folder, also for two names of one network."""
    record = work / "steps" / f"{network_spec(model, _SCALE).name}.json"
    if not record.exists():
        found = _cpu_seconds(model, _PROBE_STEPS)
        if found * _PROBE_STEPS < _PROBE_CPU_S:
            found = _cpu_seconds(model, round(_PROBE_CPU_S / found))
        _write(record, {"cpu_s": round(found, 4)})
        say(f"measured {model}: {found:.3f} s of CPU per step")
    return float(json.loads(record.read_text())["cpu_s"])


def _cpu_seconds(model: str, steps: int) -> float:
    found = timed_json(python_module("benchmarks.cpu_step_run", "eager", model, _BATCH, steps))
    return float(median(found["cpu_seconds"]))


def train(model: str, seed: int, steps: int, shards: Path, work: Path) -> dict[str, Any]:
    """Train, or reuse a finished training; return its metrics and times. An unfinished one starts again."""
    run = work / "runs" / f"{model}-{seed}"
    record = work / "runs" / f"{model}-{seed}.json"
    if not record.exists():
        shutil.rmtree(run, ignore_errors=True)
        before = _cpu_s()
        settings = ("--model", model, "--seed", seed, "--steps", steps, "--device", "cpu")
        where = ("--shards", shards, "--out", run.parent, "--run", run.name)
        timed_command(python_module("trainer", *where, *settings), limit_s=_LIMIT_S)
        _write(record, {"steps": steps, "cpu_s": round(_cpu_s() - before), **_figures(run)})
    found: dict[str, Any] = json.loads(record.read_text())
    if found["steps"] != steps:
        raise click.UsageError(f"{record} is of {found['steps']} steps, not {steps}; pass another --work")
    say(f"trained {run.name}: {found['cpu_s']} s of CPU, {found['psnr_y']:.2f} dB")
    return found


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _write(record: Path, content: Mapping[str, Any]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(record, json.dumps(content).encode())


def _figures(run: Path) -> dict[str, Any]:
    """Return the metrics of the last validation, and the median rate of the training."""
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["event"] == "val"][-1]
    rates = [line["patches_per_s"] for line in lines if line["event"] == "train"]
    metrics = {name: round(last[name], 4) for name in ("psnr_y", "ssim_y", "bicubic_psnr_y", "bicubic_ssim_y")}
    return {**metrics, "patches_per_s": round(median(rates), 2)}


def markdown(content: Mapping[str, Any]) -> str:
    """Return the table for the page, with the conditions above it."""
    settings, networks = content["settings"], content["networks"]
    first = next(iter(networks.values()))["seeds"][0]
    repeated = [(name, len(found["seeds"])) for name, found in networks.items() if len(found["seeds"]) > 1]
    noise = "".join(
        f" Of `{name}`, trained with {count} seeds, the table has the median and, in brackets, the range."
        for name, count in repeated
    )
    conditions = (
        f"Trained from scratch on {settings['train_images']} photos for {settings['minutes']:g} CPU minutes each, 4x, "
        f"exact bicubic, default settings; evaluated on {settings['val_images']} other photos (`bench_networks`, "
        f"{content['machine']['cpu']}, {content['machine']['usable_cores']} cores).{noise}"
    )
    lines = [
        "## Quality for equal CPU time",
        "",
        textwrap.fill(conditions, 120, break_long_words=False, break_on_hyphens=False),
        "",
        "| network | parameters | steps | patches/s | PSNR-Y, dB | SSIM-Y |",
        "|---|---|---|---|---|---|",
        f"| bicubic | | | | {first['bicubic_psnr_y']:.2f} | {first['bicubic_ssim_y']:.4f} |",
    ]
    return "\n".join([*lines, *(f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in _rows(networks))]) + "\n"


def _rows(networks: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, found in networks.items():
        runs = found["seeds"]
        figures = [_range([run[key] for run in runs], digits) for key, digits in _COLUMNS.items()]
        rows.append([name, f"{found['parameters']:,}", f"{runs[0]['steps']:,}", *figures])
    return rows


def _range(values: Sequence[float], digits: int) -> str:
    """Format the median and, of several values, the range."""
    text = f"{median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def write_page(page: Path, table: str) -> None:
    """Replace what is between the two comments of the page."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise click.ClickException(f"{page} has no {BEGIN.strip()} ... {END.strip()}; restore these lines")
    write_atomically(page, f"{before}{begin}\n{table}\n{end}{after}".encode())
    say(f"wrote the table in {page}")


@benchmark
@photos_option
@holdout_option
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for shards and runs; kept.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=10.0, help="CPU time of each training.")
@output_option(_RESULT)
def main(photos: Path | None, holdout: Path, work: Path, minutes: float, output: Path) -> None:
    """Train networks for equal CPU times and compare them. The default output also updates docs/reference/networks.md.

    \b
    Example:
      python -m benchmarks.bench_networks --photos photos --holdout other --work work
    """
    photo_set = PhotoSet.of(photos)
    shards = make_shards(photo_set, holdout, work)
    networks = {}
    for model, seeds in SEEDS.items():
        cpu_s = step_cpu_s(model, work)
        steps = max(1, round(minutes * 60 / cpu_s))
        networks[model] = {
            "parameters": num_parameters(network_spec(model, _SCALE).build()),
            "step_cpu_s": cpu_s,
            "seeds": [{"seed": seed, **train(model, seed, steps, shards, work)} for seed in seeds],
        }
    opened = srshards.open(shards)
    images = {"train_images": len(opened.train), "val_images": len(opened.val)}
    settings = {"minutes": minutes, "scale": _SCALE, "batch": _BATCH, **images}
    command = f"python -m benchmarks.bench_networks --photos DIR --holdout DIR --work FOLDER --minutes {minutes:g}"
    write_result(output, command, work, {"photos": photo_set.describe(), "settings": settings, "networks": networks})
    content = json.loads(output.read_text())
    if output == RESULTS / _RESULT:
        write_page(PAGE, markdown(content))
    title = f"{minutes:g} CPU minutes each; bicubic"
    print_table(title, ("network", "parameters", "steps", *_COLUMNS), _rows(networks))


if __name__ == "__main__":
    main()
