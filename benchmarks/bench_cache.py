"""Time that training waits for shards in a slow store, and the benefit of decoding them once into the cache.

Method: 4x `npy` shards are in a folder, and also behind a real S3 server whose connection is throttled to a tenth of
the rate at which one process reads them from disk (measured first in the same round). `ultra_lite` is trained on the
CPU from

  folder               the folder itself
  store, ahead         the store, with a process that fetches the next block of shards while the current one is used
  store, not ahead     the store, where a worker fetches a shard when it needs it

with an empty cache, for two epochs of several blocks of shards. The results are the share of the time that the training
process waits for data, by epoch, and the time to the first batch, which has to wait for the first shards in any case.
The floor is the share of waiting that remains when a block is fetched exactly while the previous one is used: 1 minus
the seconds to compute on a block (from `folder` in the same round) over those to transfer it, at least zero.

Then patches per second without a network, from shards in the page cache:

  npy                  generated as npy
  webp, decoded        webp, decoded into the cache
  webp, 1 or 4 patches webp, decoded in each epoch, with 1 or 4 patches cut from each decoded sample

    python -m benchmarks.bench_cache --photos DIR
"""

import os
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from benchmarks.cache_run import Task
from benchmarks.common import PhotoSet, alternating, python_module, say, scratch_folder, timed_command, timed_json
from benchmarks.disk_run import evict, read
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option
from benchmarks.report import print_table, spread, spread_text, write_result
from tests.drill.s3_server import Bucket, S3Server, environment, fresh_bucket

SLOWDOWN = 10
CASES = ("folder", "store, ahead", "store, not ahead")
STORES = ("npy", "webp, decoded", "webp, 4 patches", "webp, 1 patch")
_BLOCKS = 4


@benchmark
@photos_option
@click.option("--count", type=click.IntRange(min=20), default=200, help="Number of photos to use.")
@rounds_option(3)
@scratch_option("Folder on the disk to measure.")
@output_option("cache.json")
def main(photos: Path | None, count: int, rounds: int, scratch: Path | None, output: Path) -> None:
    """Measure how long training waits for shards in a slow store.

    \b
    Example:
      python -m benchmarks.bench_cache --photos photos --count 120 --rounds 1
    """
    photo_set = PhotoSet.of(photos)
    runs: list[dict[str, Any]] = []
    with scratch_folder(scratch) as folder, S3Server() as server, fresh_bucket(server) as bucket:
        (folder / "photos").mkdir()
        selected = photo_set.first(count, folder / "photos")
        npy, webp = (_shards(selected, folder, codec) for codec in ("npy", "webp"))
        bucket.put_folder(npy, "npy")
        for number in range(rounds):
            runs.append(_round(number, folder, npy, webp, bucket))
        num_bytes = sum(path.stat().st_size for path in npy.glob("*.tar"))
        content = {"photos": selected.describe(), "bytes": num_bytes, "blocks": _BLOCKS, **_summary(runs)}
        command = f"python -m benchmarks.bench_cache --photos DIR --count {count} --rounds {rounds}"
        write_result(output, command, folder, content)
    names = ("case", "first batch, s", "waiting, 1st epoch", "floor", "waiting, 2nd epoch")
    print_table(
        "From a store", names, [[name, *map(spread_text, case.values())] for name, case in content["cases"].items()]
    )
    rows = [[name, spread_text(rate)] for name, rate in content["patches_per_second"].items()]
    print_table("Decoded once", ("shards", "patches/s"), rows)


def _shards(photos: PhotoSet, folder: Path, codec: str) -> Path:
    """Generate 4x shards small enough to form several blocks."""
    sizes = ("-s", 4, "--shard-bytes", "32MB", "--val-fraction", 0, "--codec", codec, "--auto")
    timed_command(python_module("shardgen", "generate", "-i", photos.root, "-o", folder / codec, *sizes))
    return folder / codec / "scale_4x"


def _round(number: int, folder: Path, npy: Path, webp: Path, bucket: Bucket) -> dict[str, Any]:
    tars = sorted(npy.glob("*.tar"))
    num_bytes = sum(tar.stat().st_size for tar in tars)
    for tar in tars:
        evict(tar)
    start_s = perf_counter()
    for tar in tars:
        read(tar)
    bytes_per_s = num_bytes / (perf_counter() - start_s)
    bucket.proxy.bytes_per_s = bytes_per_s / SLOWDOWN
    block_bytes = num_bytes // _BLOCKS
    found: dict[str, Any] = {"bytes_per_s": bytes_per_s, "block_bytes": block_bytes}
    for case in alternating(CASES, number):
        task = Task(str(npy), block_bytes=block_bytes)
        if case != "folder":
            cache = folder / f"cache-{number}-{case.rpartition(', ')[2]}"
            address = f"{bucket.address}/npy"
            task = Task(address, str(cache), block_bytes=block_bytes, fetch_ahead=case == "store, ahead")
        found[case] = _run(task, bucket)
        say(f"{case}: waits {[round(_wait_share(epoch), 3) for epoch in found[case]['epochs']]}")
    tasks = {
        "npy": Task(str(npy), network=False),
        "webp, decoded": Task(str(webp), str(folder / "decoded"), network=False, decoded=True),
        "webp, 4 patches": Task(str(webp), network=False, patches_per_sample=4),
        "webp, 1 patch": Task(str(webp), network=False),
    }
    for name in alternating(STORES, number):
        run = _run(tasks[name], bucket)
        found[name] = run["patches"] / run["epochs"][-1]["seconds"]
        say(f"{name}: {found[name]:,.0f} patches/s")
    return found


def _run(task: Task, bucket: Bucket) -> dict[str, Any]:
    found = timed_json(python_module("benchmarks.cache_run", task.as_json()), environment(bucket.proxy.endpoint))
    os.sync()
    return found


def _wait_share(epoch: dict[str, float]) -> float:
    return epoch["wait_s"] / epoch["seconds"]


def _floor(run: dict[str, Any]) -> float:
    """Return the share of waiting that a perfect prefetcher would leave."""
    return max(0.0, 1 - _computing_s(run) / _transfer_s(run))


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    cases = {}
    for case in CASES:
        epochs = [[_wait_share(epoch) for epoch in run[case]["epochs"]] for run in runs]
        cases[case] = {
            "first_batch_s": spread([run[case]["first_batch_s"] for run in runs]),
            "waiting_first_epoch": spread([first for first, _ in epochs], 3),
            "floor": spread([0.0 if case == "folder" else _floor(run) for run in runs], 3),
            "waiting_second_epoch": spread([second for _, second in epochs], 3),
        }
    return {
        "folder_mb_per_second": spread([run["bytes_per_s"] / 1e6 for run in runs], 0),
        "store_mb_per_second": spread([run["bytes_per_s"] / SLOWDOWN / 1e6 for run in runs], 0),
        "block_seconds_to_transfer": spread([_transfer_s(run) for run in runs]),
        "block_seconds_computing": spread([_computing_s(run) for run in runs]),
        "cases": cases,
        "patches_per_second": {name: spread([run[name] for run in runs], 0) for name in STORES},
    }


def _transfer_s(run: dict[str, Any]) -> float:
    """Return the seconds to transfer a block."""
    return float(SLOWDOWN * run["block_bytes"] / run["bytes_per_s"])


def _computing_s(run: dict[str, Any]) -> float:
    epoch = run["folder"]["epochs"][0]
    return float(epoch["seconds"] - epoch["wait_s"]) / _BLOCKS


if __name__ == "__main__":
    main()
