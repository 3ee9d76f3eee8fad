"""How fast patches come from a disk, when the shards are larger than memory.

Method: `npy` shards at 4x of all photos. Before every run, every byte of them is taken out of the page cache, as it is
with a set of which memory holds next to nothing. Then one process cuts one patch of 192 px from every sample, in the
order of training, in a way of its own:

  ahead        as the trainer does: the rows that the next steps will need are announced, nothing else is read
  faults       nothing is announced: a page is read when it is touched
  whole        the shards are read from beginning to end by two threads first, as one would who announces whole blocks
  sequential   the same without cutting anything: what the disk gives at best, in samples per second

All once per round, every second round in reverse order. Bytes are those that the kernel says were fetched from the
disk.

    python -m benchmarks.bench_disk --photos DIR
"""

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.common import PhotoSet, python_module, say, scratch_folder, timed_command
from benchmarks.options import output_option, photos_option, scratch_option
from benchmarks.report import print_table, spread, write_result
from benchmarks.stream_stores import make_shards
from srshards.terminal.help import Command

WAYS = ("ahead", "faults", "whole", "sequential")
INPUTS = ("lr", "up")


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@photos_option
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="How often each way runs.")
@scratch_option("A folder on the disk that is measured.")
@output_option("disk.json")
def main(photos: Path | None, rounds: int, scratch: Path | None, output: Path) -> None:
    """Measure how fast patches come from a disk.

    \b
    Example:
      python -m benchmarks.bench_disk --photos photos --rounds 3
    """
    photo_set = PhotoSet.of(photos)
    runs: dict[str, list[dict[str, Any]]] = {}
    with scratch_folder(scratch) as folder:
        shards = make_shards(photo_set, folder / "shards", "npy")
        for number in range(rounds):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                for input_name in INPUTS:
                    command = python_module("benchmarks.disk_run", shards, input_name, way)
                    found = json.loads(timed_command(command)[1])
                    runs.setdefault(f"{way}, {input_name}", []).append(found)
                    say(f"round {number + 1}/{rounds}  {way}, {input_name}: {_rate(found):,.0f} patches/s")
        content = {"photos": photo_set.describe(), "ways": {name: _summary(found) for name, found in runs.items()}}
        write_result(output, f"python -m benchmarks.bench_disk --photos DIR --rounds {rounds}", folder, content)
    columns = ("way, input", "patches/s", "KB from disk per patch", "GB/s from disk")
    rows = [[name, *(_text(values) for values in summary.values())] for name, summary in content["ways"].items()]
    print_table("From a disk", columns, rows)


def _rate(found: dict[str, Any]) -> float:
    return float(found["patches"] / found["seconds"])


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "patches_per_second": spread([_rate(run) for run in runs], 0),
        "disk_kb_per_patch": spread([run["disk_bytes"] / run["patches"] / 1e3 for run in runs], 0),
        "disk_gb_per_second": spread([run["disk_bytes"] / run["seconds"] / 1e9 for run in runs], 2),
    }


def _text(values: dict[str, Any]) -> str:
    return f"{values['median']:,} ({values['min']:,}-{values['max']:,})"


if __name__ == "__main__":
    main()
