"""Rate of reading patches from disk when the shards are larger than memory.

Method: 4x `npy` shards of all photos. Before every run, the shards are completely evicted from the page cache, as if
memory could hold only a small part of the set. Then one process cuts one patch of 192 px from every sample in training
order, in one of these cases:

  ahead        as the trainer does: only the rows that the next steps need are requested in advance (posix_fadvise)
  faults       nothing is requested in advance: each page is read when it is accessed
  whole        two threads first read the shards from start to end, as requesting complete blocks in advance would
  sequential   the same without cutting patches: the upper bound of this disk, in samples per second

All cases run once per round, in reverse order in every second round. Bytes are those that the kernel counted as read
from disk.

    python -m benchmarks.bench_disk --photos DIR
"""

from pathlib import Path
from typing import Any

from benchmarks.common import PhotoSet, in_rounds, python_module, say, scratch_folder, timed_json
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option
from benchmarks.report import print_table, spread, spread_text, write_result
from benchmarks.stream_stores import make_shards

CASES = ("ahead", "faults", "whole", "sequential")
INPUTS = ("lr", "up")


@benchmark
@photos_option
@rounds_option(5)
@scratch_option("Folder on the disk to measure.")
@output_option("disk.json")
def main(photos: Path | None, rounds: int, scratch: Path | None, output: Path) -> None:
    """Measure how fast patches are read from disk.

    \b
    Example:
      python -m benchmarks.bench_disk --photos photos --rounds 3
    """
    photo_set = PhotoSet.of(photos)
    runs: dict[str, list[dict[str, Any]]] = {}
    with scratch_folder(scratch) as folder:
        shards = make_shards(photo_set, folder / "shards", "npy")
        for number, case in in_rounds(CASES, rounds):
            for input_name in INPUTS:
                found = timed_json(python_module("benchmarks.disk_run", shards, input_name, case))
                runs.setdefault(f"{case}, {input_name}", []).append(found)
                say(f"round {number + 1}/{rounds}  {case}, {input_name}: {_rate(found):,.0f} patches/s")
        content = {"photos": photo_set.describe(), "cases": {name: _summary(found) for name, found in runs.items()}}
        write_result(output, f"python -m benchmarks.bench_disk --photos DIR --rounds {rounds}", folder, content)
    columns = ("case, input", "patches/s", "KB from disk per patch", "GB/s from disk")
    rows = [[name, *(spread_text(values) for values in summary.values())] for name, summary in content["cases"].items()]
    print_table("From disk", columns, rows)


def _rate(found: dict[str, Any]) -> float:
    return float(found["patches"] / found["seconds"])


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "patches_per_second": spread([_rate(run) for run in runs], 0),
        "disk_kb_per_patch": spread([run["disk_bytes"] / run["patches"] / 1e3 for run in runs], 0),
        "disk_gb_per_second": spread([run["disk_bytes"] / run["seconds"] / 1e9 for run in runs], 2),
    }


if __name__ == "__main__":
    main()
