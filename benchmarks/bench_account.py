"""Share of the steps in the wall-clock time of a training, from the first step to the last.

Method: each network is trained by the public command on shards of real photos, 4x, patches of 192 px, batches of 16,
with the default interval of validations, in a fresh process. The figures are those of the last `account` line in the
run's journal. The small networks train long enough to be validated between their first and last step.

    python -m benchmarks.bench_account --photos DIR
"""

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.common import RESULTS, PhotoSet, python_module, say, scratch_folder, timed_command
from benchmarks.options import benchmark, output_option, photos_option, scratch_option, workers_option
from benchmarks.report import print_table, verdict, write_result
from trainer.messages import format_duration
from trainer.training.account import PHASE_NAMES
from trainer.training.device import choose_device, choose_precision, describe_device, limit_threads

SCALE, PATCH_PX, BATCH = 4, 192, 16
_STEPS = {
    "cpu": {"ultra_lite": 1200, "lite": 250, "standard": 8},
    "cuda": {"ultra_lite": 40_000, "lite": 30_000, "standard": 2000},
}
_MIN_SHARE = 0.95


def measure(model: str, shards: Path, out: Path, workers: int, device: str, steps: int) -> dict[str, Any]:
    """Train `model` for `steps` steps; return its account, the steps of its validations, and the process's time."""
    sizes = ("--patch-size", PATCH_PX, "--batch-size", BATCH, "--steps", steps)
    where = ("--out", out, "--run", model, "--workers", workers, "--device", device)
    command_s, _ = timed_command(python_module("trainer", "--shards", shards, "--model", model, *sizes, *where))
    lines = [json.loads(line) for line in (out / model / "journal.jsonl").read_text().splitlines()]
    account = [line for line in lines if line["event"] == "account"][-1]
    return {
        "steps": steps,
        "seconds": {key: round(account[key], 3) for key in PHASE_NAMES},
        "steps_share": round(account["steps_share"], 4),
        "met": account["steps_share"] >= _MIN_SHARE,
        "validated_after": [line["step"] for line in lines if line["event"] == "val"],
        "command_s": round(command_s, 2),  # of the whole process, including the start and the end of Python
    }


@benchmark
@photos_option
@workers_option("Data workers.")
@click.option("--device", default="auto", help="cpu, cuda, or auto.")
@scratch_option("Folder for temporary files.")
@output_option(None)
def main(photos: Path | None, workers: int, device: str, scratch: Path | None, output: Path | None) -> None:
    """Measure how the wall-clock time of a training of each network divides.

    \b
    Example:
      python -m benchmarks.bench_account --photos photos --workers 2
    """
    photo_set = PhotoSet.of(photos)
    torch_device = choose_device(device)
    limit_threads()
    networks: dict[str, dict[str, Any]] = {}
    with scratch_folder(scratch) as folder:
        timed_command(python_module("shardgen", "generate", "-i", photo_set.root, "-o", folder, "-s", SCALE, "--auto"))
        for model, steps in _STEPS[torch_device.type].items():
            networks[model] = measure(model, folder / f"scale_{SCALE}x", folder / "runs", workers, device, steps)
            say(f"{model}: steps {networks[model]['steps_share']:.2%} of the time from the first to the last")
        command = f"python -m benchmarks.bench_account --photos DIR --workers {workers}"
        settings = {"scale": SCALE, "patch_px": PATCH_PX, "batch": BATCH, "workers": workers}
        device_info = {"name": describe_device(torch_device), "precision": str(choose_precision("auto", torch_device))}
        content = {"photos": photo_set.describe(), "settings": settings, "device": device_info, "networks": networks}
        write_result(output or RESULTS / "account.json", command, folder, content)
    columns = ("network", "steps", "wall clock", *PHASE_NAMES.values(), "steps, first to last")
    print_table(f"4x, batches of {BATCH}, {device_info['name']}, {device_info['precision']}", columns, _rows(networks))


def _rows(networks: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = []
    for model, found in networks.items():
        total_s = sum(found["seconds"].values())
        shares = [f"{seconds / total_s:.2%}" for seconds in found["seconds"].values()]
        share = f"{found['steps_share']:.2%} {verdict(found['met'])}"
        rows.append([model, f"{found['steps']:,}", format_duration(total_s), *shares, share])
    return rows


if __name__ == "__main__":
    main()
