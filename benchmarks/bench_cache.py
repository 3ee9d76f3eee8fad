"""What training waits for when its shards lie in a slow store; and what decoding them once into the cache saves.

Method: `npy` shards at 4x lie in a folder, and behind a real S3 server whose line is throttled to a tenth of the rate
at which one process reads the folder's shards from the disk, measured first in the same round. `ultra_lite` trains on a
CPU from

  folder               the folder itself
  store, ahead         the store: another process fetches the next block of shards while this one is used
  store, not ahead     the store: a worker fetches a shard when it meets it

with an empty cache, two epochs of several blocks of shards. What is given is the share of the time that the training
process waits for data, by epoch; and how long the first batch takes, which has to wait for the first shards in any
case. The floor is what waiting remains when a block is fetched exactly while the one before it is used: the seconds of
a block on the line less those of computing on it (the folder's, in the same round), if that is more than nothing.

Then patches per second without a network, from shards that the page cache holds:

  npy                  made as npy
  webp, decoded        webp in a cache that has decoded them
  webp, 1 or 4 patches webp as it is, so many patches cut from a sample that is decoded

    python -m benchmarks.bench_cache --photos DIR
"""

import json
import os
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from benchmarks.cache_run import Task
from benchmarks.common import PhotoSet, python_module, say, scratch_folder, timed_command
from benchmarks.disk_run import forget, read
from benchmarks.options import output_option, photos_option, scratch_option
from benchmarks.report import print_table, spread, write_result
from srshards.terminal.help import Command
from tests.drill.s3_server import Bucket, S3Server, environment, fresh_bucket

SLOWER = 10
WAYS = ("folder", "store, ahead", "store, not ahead")
STORES = ("npy", "webp, decoded", "webp, 4 patches", "webp, 1 patch")
_BLOCKS = 4


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@photos_option
@click.option("--count", type=click.IntRange(min=20), default=200, help="How many of the photos.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="How often each way runs.")
@scratch_option("A folder on the disk that is measured.")
@output_option("cache.json")
def main(photos: Path | None, count: int, rounds: int, scratch: Path | None, output: Path) -> None:
    """Measure what training from a slow store waits for.

    \b
    Example:
      python -m benchmarks.bench_cache --photos photos --count 120 --rounds 1
    """
    photo_set = PhotoSet.of(photos)
    runs: list[dict[str, Any]] = []
    with scratch_folder(scratch) as folder, S3Server() as server, fresh_bucket(server) as bucket:
        (folder / "photos").mkdir()
        some = photo_set.first(count, folder / "photos")
        npy, webp = (_shards(some, folder, codec) for codec in ("npy", "webp"))
        bucket.put_folder(npy, "npy")
        for number in range(rounds):
            runs.append(_round(number, folder, npy, webp, bucket))
        num_bytes = sum(path.stat().st_size for path in npy.glob("*.tar"))
        content = {"photos": some.describe(), "bytes": num_bytes, "blocks": _BLOCKS, **_summary(runs)}
        command = f"python -m benchmarks.bench_cache --photos DIR --count {count} --rounds {rounds}"
        write_result(output, command, folder, content)
    names = ("way", "first batch, s", "waiting, 1st epoch", "floor", "waiting, 2nd epoch")
    print_table("From a store", names, [[name, *map(_text, way.values())] for name, way in content["ways"].items()])
    rows = [[name, _text(rate)] for name, rate in content["patches_per_second"].items()]
    print_table("Decoded once", ("shards", "patches/s"), rows)


def _shards(photos: PhotoSet, folder: Path, codec: str) -> Path:
    """4x shards that are small enough for some blocks of them."""
    sizes = ("-s", 4, "--shard-bytes", "32MB", "--val-fraction", 0, "--codec", codec, "--auto")
    timed_command(python_module("shardgen", "generate", "-i", photos.root, "-o", folder / codec, *sizes))
    return folder / codec / "scale_4x"


def _round(number: int, folder: Path, npy: Path, webp: Path, bucket: Bucket) -> dict[str, Any]:
    tars = sorted(npy.glob("*.tar"))
    num_bytes = sum(tar.stat().st_size for tar in tars)
    for tar in tars:
        forget(tar)
    start_s = perf_counter()
    for tar in tars:
        read(tar)
    bytes_per_s = num_bytes / (perf_counter() - start_s)
    bucket.proxy.bytes_per_s = bytes_per_s / SLOWER
    block_bytes = num_bytes // _BLOCKS
    found: dict[str, Any] = {"bytes_per_s": bytes_per_s, "block_bytes": block_bytes}
    for way in WAYS if number % 2 == 0 else reversed(WAYS):
        task = Task(str(npy), block_bytes=block_bytes)
        if way != "folder":
            cache = folder / f"cache-{number}-{way.rpartition(', ')[2]}"
            address = f"{bucket.address}/npy"
            task = Task(address, str(cache), block_bytes=block_bytes, fetch_ahead=way == "store, ahead")
        found[way] = _run(task, bucket)
        say(f"{way}: waits {[round(_wait_share(epoch), 3) for epoch in found[way]['epochs']]}")
    tasks = {
        "npy": Task(str(npy), network=False),
        "webp, decoded": Task(str(webp), str(folder / "decoded"), network=False, decoded=True),
        "webp, 4 patches": Task(str(webp), network=False, patches_per_sample=4),
        "webp, 1 patch": Task(str(webp), network=False),
    }
    for name in STORES if number % 2 == 0 else reversed(STORES):
        done = _run(tasks[name], bucket)
        found[name] = done["patches"] / done["epochs"][-1]["seconds"]
        say(f"{name}: {found[name]:,.0f} patches/s")
    return found


def _run(task: Task, bucket: Bucket) -> dict[str, Any]:
    command = python_module("benchmarks.cache_run", task.as_json())
    done: dict[str, Any] = json.loads(timed_command(command, environment(bucket.proxy.endpoint))[1])
    os.sync()
    return done


def _wait_share(epoch: dict[str, float]) -> float:
    return epoch["wait_s"] / epoch["seconds"]


def _floor(run: dict[str, Any]) -> float:
    """The share of waiting that a perfect fetcher leaves."""
    return max(0.0, 1 - _computing_s(run) / _line_s(run))


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    ways = {}
    for way in WAYS:
        epochs = [[_wait_share(epoch) for epoch in run[way]["epochs"]] for run in runs]
        ways[way] = {
            "first_batch_s": spread([run[way]["first_batch_s"] for run in runs]),
            "waiting_first_epoch": spread([first for first, _ in epochs], 3),
            "floor": spread([0.0 if way == "folder" else _floor(run) for run in runs], 3),
            "waiting_second_epoch": spread([second for _, second in epochs], 3),
        }
    return {
        "folder_mb_per_second": spread([run["bytes_per_s"] / 1e6 for run in runs], 0),
        "store_mb_per_second": spread([run["bytes_per_s"] / SLOWER / 1e6 for run in runs], 0),
        "block_seconds_on_the_line": spread([_line_s(run) for run in runs]),
        "block_seconds_computing": spread([_computing_s(run) for run in runs]),
        "ways": ways,
        "patches_per_second": {name: spread([run[name] for run in runs], 0) for name in STORES},
    }


def _line_s(run: dict[str, Any]) -> float:
    """Of a block."""
    return float(SLOWER * run["block_bytes"] / run["bytes_per_s"])


def _computing_s(run: dict[str, Any]) -> float:
    epoch = run["folder"]["epochs"][0]
    return float(epoch["seconds"] - epoch["wait_s"]) / _BLOCKS


def _text(values: dict[str, Any]) -> str:
    return f"{values['median']:,} ({values['min']:,}-{values['max']:,})"


if __name__ == "__main__":
    main()
