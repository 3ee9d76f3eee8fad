"""Time that BasicSR waits for data: PNG folders and LMDB, read by its own loader, against shards.

Method: the same samples, HR of 512 px with LR at 4x, are stored as shards, as PNG files, and as LMDB made from these by
BasicSR's own function. BasicSR trains on each for `ITERATIONS` iterations in a fresh process, with the same number of
data workers; all cases once per round. The network is so small that loading data is the bottleneck, as on a fast GPU.
The figures are those of BasicSR's log, `time (data)`, in its last line: averages over the iterations since it last
reset them, without the start of the workers. Epochs are enlarged as in BasicSR's examples, so no worker starts in
between.

Run it in the environment of `make test-peers`:

    .venv-peers/bin/python -m benchmarks.bench_basicsr --photos DIR
"""

import re
import sys
from pathlib import Path
from typing import Any

import cv2
import yaml

import srshards
from benchmarks.common import (
    REPOSITORY,
    PhotoSet,
    RunFailedError,
    in_rounds,
    python_module,
    say,
    scratch_folder,
    timed_command,
)
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option, workers_option
from benchmarks.report import print_table, spread, spread_text, write_result

SCALE, PATCH_PX, BATCH, ITERATIONS = 4, 192, 16, 300
_STAND_INS = REPOSITORY / "tests" / "peers" / "stand_ins"
_LAUNCHER = "srshards.adapters.basicsr"
_OWN_LOADER = f"import {_LAUNCHER}; from basicsr.train import train_pipeline; train_pipeline('.')"
_MAKE_LMDB = """
import os, sys
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
files = sorted(os.listdir(sys.argv[1]))
make_lmdb_from_imgs(sys.argv[1], sys.argv[1] + ".lmdb", files, [name.removesuffix(".png") for name in files])
"""
_ENVIRONMENT = {"PYTHONPATH": f"{_STAND_INS}:{REPOSITORY}", "OMP_WAIT_POLICY": "PASSIVE"}

_SHARDS = "shards, launcher"
CASES = ("PNG folders", "LMDB", "shards, dataset", _SHARDS)


def write_files(shards: srshards.Shards, folder: Path) -> None:
    """Write the training samples as `HR/KEY.png` and `LR/KEY.png`, and both folders as LMDB."""
    for name in ("HR", "LR"):
        (folder / name).mkdir()
    for sample in shards.train:
        for name, image in (("HR", sample.hr), ("LR", sample.lr)):
            cv2.imwrite(str(folder / name / f"{sample.key}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    for name in ("HR", "LR"):
        timed_command([sys.executable, "-c", _MAKE_LMDB, str(folder / name)], _ENVIRONMENT)


def dataset(case: str, folder: Path) -> dict[str, Any]:
    """Return the options of BasicSR that differ between cases."""
    if case in ("PNG folders", "LMDB"):
        kind, suffix = ("lmdb", ".lmdb") if case == "LMDB" else ("disk", "")
        roots = {"dataroot_gt": f"{folder}/HR{suffix}", "dataroot_lq": f"{folder}/LR{suffix}"}
        return {"type": "PairedImageDataset", "io_backend": {"type": kind}, **roots}
    return {"type": "ShardsDataset", "io_backend": {"type": "shards", "path": f"{folder}/scale_{SCALE}x"}}


def measure(case: str, folder: Path, out: Path, workers: int) -> tuple[float, float]:
    """Train and return the time of an iteration, and the part of it that was spent waiting for data, in seconds."""
    options = yaml.safe_load((REPOSITORY / "examples" / "basicsr.yml").read_text())
    options["datasets"]["train"] |= {
        **dataset(case, folder),
        "gt_size": PATCH_PX,
        "batch_size_per_gpu": BATCH,
        "num_worker_per_gpu": workers,
        "dataset_enlarge_ratio": 100,
    }
    del options["datasets"]["val"], options["val"]
    options |= {"num_gpu": 0, "network_g": {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": SCALE}}
    options["train"]["total_iter"] = ITERATIONS
    options["logger"] |= {"print_freq": ITERATIONS, "save_checkpoint_freq": 10 * ITERATIONS}
    file = out / "options.yml"
    out.mkdir(parents=True)
    file.write_text(yaml.safe_dump(options))
    run = python_module(_LAUNCHER) if case == _SHARDS else [sys.executable, "-c", _OWN_LOADER]
    timed_command([*run, "-opt", str(file)], _ENVIRONMENT, out)
    (log,) = out.glob("experiments/*/train_*.log")
    if not (found := re.search(rf"iter: +{ITERATIONS}, .*time \(data\): (\S+) \((\S+)\)", log.read_text())):
        raise RunFailedError(f"{case}: BasicSR logged no times of iteration {ITERATIONS}")
    return float(found[1]), float(found[2])


@benchmark
@photos_option
@rounds_option(3, "Number of trainings on each kind of data.")
@workers_option("Data workers.")
@scratch_option("Folder for temporary files.")
@output_option("basicsr.json")
def main(photos: Path | None, rounds: int, workers: int, scratch: Path | None, output: Path) -> None:
    """Measure how long BasicSR waits for data from folders, LMDB and shards.

    \b
    Example:
      python -m benchmarks.bench_basicsr --photos photos --rounds 1 --workers 2
    """
    photo_set = PhotoSet.of(photos)
    runs: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
    with scratch_folder(scratch) as folder:
        timed_command(python_module("shardgen", "generate", "-i", photo_set.root, "-o", folder, "-s", SCALE, "--auto"))
        write_files(srshards.open(folder / f"scale_{SCALE}x"), folder)
        for number, case in in_rounds(CASES, rounds):
            runs[case].append(measure(case, folder, folder / f"round{number}" / case, workers))
            say(f"round {number + 1}/{rounds}  {case}: {runs[case][-1][1] * 1e3:.0f} ms of data time per iteration")
        found = {
            case: {"iteration_s": spread([run[0] for run in of], 3), "data_s": spread([run[1] for run in of], 3)}
            for case, of in runs.items()
        }
        command = f"python -m benchmarks.bench_basicsr --photos DIR --rounds {rounds} --workers {workers}"
        settings = {"scale": SCALE, "patch_px": PATCH_PX, "batch": BATCH, "iterations": ITERATIONS, "workers": workers}
        content = {"photos": photo_set.describe(), "settings": {**settings, "rounds": rounds}, "cases": found}
        write_result(output, command, folder, content)
    rows = [
        [case, *(spread_text(times[name], 3) for name in ("iteration_s", "data_s"))] for case, times in found.items()
    ]
    print_table(f"BasicSR, batches of {BATCH}, {workers} workers", ("data", "time, s", "data time, s"), rows)


if __name__ == "__main__":
    main()
