"""One epoch of crops from shards of which memory holds nothing; prints a line of JSON.

python -m benchmarks.disk_run SHARDS lr|up ahead|faults|whole|sequential
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, sleep

import numpy as np

from benchmarks.stream_measure import disk_bytes_read
from srshards.loader.batches import BatchReader
from srshards.sampling.patches import NUM_SYMMETRIES, PatchGrid
from srshards.sampling.schedule import Schedule
from srshards.shards.mapped import MappedShard
from srshards.shards.opening import open_shards

PATCH_PX, BATCH, STEPS = 192, 16, 4
_READ_BYTES = 1 << 22
_SEED = 0
_TRIES, _PAUSE_S, _LOOK_EVERY_BYTES = 50, 0.1, 1 << 18


def main(folder: str, input_name: str, way: str) -> None:
    """Forget the shards, then read: as the trainer does, in a way that was not taken, or all of it in order."""
    shards = open_shards(Path(folder))
    tars = [shards.tar(record) for record in shards.train.records]
    for tar in tars:
        forget(tar)
    if way == "faults":
        MappedShard.read_ahead = lambda *words: None  # type: ignore[method-assign]
    disk, start_s = disk_bytes_read(), perf_counter()
    if way in ("whole", "sequential"):
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(read, tars))
    patches = len(shards.train) if way == "sequential" else cut_an_epoch(folder, input_name)
    seconds = perf_counter() - start_s
    found = {"patches": patches, "seconds": seconds, "disk_bytes": disk_bytes_read() - disk}
    print(json.dumps(found), flush=True)


def forget(path: Path) -> None:
    """Take a file out of the page cache. RuntimeError when some of it stays."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        for _ in range(_TRIES):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            places = range(0, path.stat().st_size, _LOOK_EVERY_BYTES)
            if not any(_is_cached(file.fileno(), place) for place in places):
                return
            sleep(_PAUSE_S)
    raise RuntimeError(f"{path}: the system keeps it in memory")


def _is_cached(file: int, place: int) -> bool:
    try:
        return bool(os.preadv(file, [bytearray(1)], place, os.RWF_NOWAIT))
    except BlockingIOError:
        return False


def read(path: Path) -> None:
    """Read a file from its beginning to its end."""
    buffer = bytearray(_READ_BYTES)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def cut_an_epoch(folder: str, input_name: str) -> int:
    """Cut a patch from every sample, in the order of training. How many there were."""
    shards = open_shards(Path(folder))
    schedule = Schedule(
        [r.samples for r in shards.train.records], [r.bytes for r in shards.train.records], _SEED, BATCH
    )
    size = shards.scale if input_name == "lr" else 1
    grid = PatchGrid(shards.hr_size, shards.scale, PATCH_PX, size, NUM_SYMMETRIES)
    samples = [(shards.tar(record), record.samples) for record in shards.train.records]
    reader = BatchReader(samples, shards.codec, schedule, grid, shards.inputs(input_name), _SEED)
    rows, steps = range(BATCH), schedule.num_steps(1)
    memory = np.empty(STEPS * BATCH * grid.bytes_per_row, np.uint8)
    for first in range(0, steps, STEPS):
        now, afterwards = (range(min(n, steps), min(n + STEPS, steps)) for n in (first, first + STEPS))
        reader.read(now, rows, reader.lay_out(memory, len(now), BATCH), afterwards)
    return steps * BATCH


if __name__ == "__main__":
    main(*sys.argv[1:])
