"""Cut one epoch of patches from shards that are not in the page cache; print one line of JSON.

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
_TRIES, _PAUSE_S, _PROBE_EVERY_BYTES = 50, 0.1, 1 << 18


def main(folder: str, input_name: str, case: str) -> None:
    """Evict the shards from the page cache, then read them as `case` specifies."""
    shards = open_shards(Path(folder))
    tars = [shards.tar(record) for record in shards.train.records]
    for tar in tars:
        evict(tar)
    if case == "faults":
        MappedShard.read_ahead = lambda *arguments: None  # type: ignore[method-assign]
    disk, start_s = disk_bytes_read(), perf_counter()
    if case in ("whole", "sequential"):
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(read, tars))
    patches = len(shards.train) if case == "sequential" else cut_epoch(folder, input_name)
    seconds = perf_counter() - start_s
    found = {"patches": patches, "seconds": seconds, "disk_bytes": disk_bytes_read() - disk}
    print(json.dumps(found), flush=True)


def evict(path: Path) -> None:
    """Evict a file from the page cache. RuntimeError if part of it remains cached."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        for _ in range(_TRIES):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            offsets = range(0, path.stat().st_size, _PROBE_EVERY_BYTES)
            if not any(_is_cached(file.fileno(), offset) for offset in offsets):
                return
            sleep(_PAUSE_S)
    raise RuntimeError(f"{path}: still in the page cache after eviction")


def _is_cached(file: int, offset: int) -> bool:
    try:
        return bool(os.preadv(file, [bytearray(1)], offset, os.RWF_NOWAIT))
    except BlockingIOError:
        return False


def read(path: Path) -> None:
    """Read a file from start to end."""
    buffer = bytearray(_READ_BYTES)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def cut_epoch(folder: str, input_name: str) -> int:
    """Cut a patch from every sample in training order; return their number."""
    shards = open_shards(Path(folder))
    schedule = Schedule(
        [r.samples for r in shards.train.records], [r.bytes for r in shards.train.records], _SEED, BATCH
    )
    size = shards.scale if input_name == "lr" else 1
    grid = PatchGrid(shards.hr_size, shards.scale, PATCH_PX, size, NUM_SYMMETRIES)
    samples = [(shards.tar(record), record.samples) for record in shards.train.records]
    reader = BatchReader(samples, shards.codec, schedule, grid, shards.inputs(input_name), _SEED, shards.origin)
    rows, steps = range(BATCH), schedule.num_steps(1)
    memory = np.empty(STEPS * BATCH * grid.bytes_per_row, np.uint8)
    for first in range(0, steps, STEPS):
        current, following = (range(min(n, steps), min(n + STEPS, steps)) for n in (first, first + STEPS))
        reader.read(current, rows, reader.lay_out(memory, len(current), BATCH), following)
    return steps * BATCH


if __name__ == "__main__":
    main(*sys.argv[1:])
