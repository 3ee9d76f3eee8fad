"""Rate at which patches reach the training process from shards that are larger than memory, and others' from theirs.

Method: as `bench_stream`, but each store is completely evicted from the page cache before each run, as if memory could
hold a small part of the set only. A run takes the batches of one epoch, so it reads each sample once; the start of the
workers counts. Bytes are those that the kernel counted as read from disk. `sequential` reads the files of the store
from start to end in two threads: the bandwidth that the bytes of the same store are compared with.

`consumer` cases take patches at no more than 30,000 per second, about what an H100 trains `lite` with, and give the
share of the time in which they waited for a batch.

    python -m benchmarks.bench_cold --photos DIR --peers PYTHON --ffcv PYTHON
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from benchmarks.cold_run import Epoch, result_in
from benchmarks.common import PhotoSet, RunFailedError, alternating, say, scratch_folder, timed_command
from benchmarks.disk_run import evict, read
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option
from benchmarks.peers.task import SCALE, Task
from benchmarks.report import print_table, spread, spread_text, write_result
from benchmarks.stream_cases import FFCV, OURS, PEER_CASES, PEERS, Case
from benchmarks.stream_stores import NO_UP, make_shards, write_triplets

BATCH = 16
CONSUMER_RATE = 30_000
_PEERS = ("PyTorch, samples", "LMDB raw", "FFCV raw")
_OURS = (
    Case("ours npy, up", "npy shards with up, input up", "ours", OURS, "npy"),
    Case("ours npy, computed up", "npy shards without up, input up", "ours", OURS, NO_UP),
    Case("ours npy, lr", "npy shards without up, input lr", "ours", OURS, NO_UP, input="lr"),
    Case("ours tlc, lr", "tlc shards without up, input lr", "ours", OURS, "tlc", input="lr"),
)
CASES = (*_OURS, *(case for case in PEER_CASES if case.name in _PEERS))
CONSUMERS = tuple(replace(case, name=f"consumer, {case.name}") for case in _OURS if case.input == "lr")


@dataclass(frozen=True)
class Setting:
    """Where the stores are, which interpreters read them, and the number of samples."""

    scratch: Path
    pythons: dict[str, str]
    samples: int

    def store(self, case: Case) -> Path:
        return self.scratch / "stores" / case.store

    def command(self, case: Case, module: str, *more: object) -> list[str]:
        """Return the command that runs a module for the case in its environment."""
        store = self.store(case) / f"scale_{SCALE}x" if case.where == OURS else self.store(case)
        triplets = str(self.scratch / "triplets")
        task = Task(str(store), triplets, variant=case.variant, batch=BATCH, workers=case.workers, input=case.input)
        python = self.pythons.get(case.where, sys.executable)
        return [python, "-m", f"benchmarks.{module}", case.module, task.as_json(), *map(str, more)]


def run(setting: Setting, case: Case) -> Epoch:
    """Evict the store, then take an epoch."""
    files = [path for path in _files(setting.store(case)) if path.stat().st_size]
    for path in files:
        evict(path)
    rate = CONSUMER_RATE if case in CONSUMERS else 0
    return result_in(timed_command(setting.command(case, "cold_run", setting.samples // BATCH, rate))[1])


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def sequential_gb_per_second(folder: Path) -> float:
    """Return the rate of reading all files of a folder from disk."""
    files = [path for path in _files(folder) if path.stat().st_size]
    for path in files:
        evict(path)
    start_s = perf_counter()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(read, files))
    return sum(path.stat().st_size for path in files) / (perf_counter() - start_s) / 1e9


def summary(case: Case, epochs: list[Epoch], sequential: list[float]) -> dict[str, Any]:
    """Return patches/s, KB from disk per patch, GB/s from disk, its share of the sequential rate, and time waited."""
    rates = [epoch.disk_bytes / epoch.seconds / 1e9 for epoch in epochs]
    return {
        "what": case.what,
        "patches_per_second": spread([epoch.batches * BATCH / epoch.seconds for epoch in epochs], 0),
        "disk_kb_per_patch": spread([epoch.disk_bytes / epoch.batches / BATCH / 1e3 for epoch in epochs], 0),
        "disk_gb_per_second": spread(rates, 2),
        "of_sequential": spread([rate / other for rate, other in zip(rates, sequential, strict=True)], 2),
        "waited": spread([epoch.wait_s / epoch.seconds for epoch in epochs], 3),
    }


@benchmark
@photos_option
@rounds_option(3)
@click.option("--peers", metavar="PYTHON", help="Interpreter of the environment with the peers.")
@click.option("--ffcv", metavar="PYTHON", help="Interpreter of the environment with FFCV.")
@scratch_option("Folder on the disk to measure.")
@output_option("cold.json")
def main(
    photos: Path | None, rounds: int, peers: str | None, ffcv: str | None, scratch: Path | None, output: Path
) -> None:
    """Measure how fast patches are read from disk.

    \b
    Example:
      python -m benchmarks.bench_cold --photos photos --rounds 3
    """
    photo_set = PhotoSet.of(photos)
    pythons = {where: os.path.abspath(python) for where, python in ((PEERS, peers), (FFCV, ffcv)) if python}
    cases = [case for case in CASES if case.where not in (PEERS, FFCV) or case.where in pythons]
    epochs: dict[str, list[Epoch]] = {}
    sequential: dict[str, list[float]] = {}
    with scratch_folder(scratch) as folder:
        for store in dict.fromkeys(case.store for case in _OURS):
            codec = "npy" if store == NO_UP else store
            shards = make_shards(photo_set, folder / "stores" / store, codec, up=store == "npy")
            if store == "npy":
                samples = write_triplets(shards, folder / "triplets")
        setting = Setting(folder, pythons, samples)
        for case in cases:
            if case.where != OURS:
                timed_command(setting.command(case, "stream_run"))
        os.sync()
        for number in range(rounds):
            for case in alternating([*cases, *CONSUMERS], number):
                try:
                    epoch = run(setting, case)
                except (RunFailedError, ValueError) as error:
                    say(f"          {case.name}: {error}")
                    continue
                sequential.setdefault(case.name, []).append(sequential_gb_per_second(setting.store(case)))
                epochs.setdefault(case.name, []).append(epoch)
                rate = epoch.batches * BATCH / epoch.seconds
                say(f"round {number + 1}/{rounds}  {case.name}: {rate:,.0f} patches/s")
        found = {
            case.name: summary(case, epochs[case.name], sequential[case.name])
            for case in (*cases, *CONSUMERS)
            if case.name in epochs
        }
        content = {"photos": photo_set.describe(), "samples": samples, "sequential": sequential, "cases": found}
        command = f"python -m benchmarks.bench_cold --photos DIR --peers PYTHON --ffcv PYTHON --rounds {rounds}"
        write_result(output, command, folder, content)
    columns = ("case", "patches/s", "KB per patch", "GB/s", "of sequential", "waited")
    rows = [[name, *(spread_text(each) for each in list(case.values())[1:])] for name, case in found.items()]
    print_table("From disk", columns, rows)


if __name__ == "__main__":
    main()
