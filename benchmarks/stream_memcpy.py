"""The rate at which this machine copies memory: the upper bound for a loader that writes its batches into memory."""

import multiprocessing
from time import perf_counter
from typing import Any

import numpy as np

_BYTES = 256 << 20  # far more than any cache
_SECONDS = 1.0


def memcpy_rate(processes: int) -> float:
    """Return the total GB/s that `processes` processes copy at the same time; a byte read and written counts once."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    workers = [context.Process(target=_copy, args=(barrier, results), daemon=True) for _ in range(processes)]
    for worker in workers:
        worker.start()
    rate = sum(float(results.get()) for _ in workers)
    for worker in workers:
        worker.join()
    return rate


def _copy(barrier: Any, results: Any) -> None:
    source, target = np.ones(_BYTES, np.uint8), np.zeros(_BYTES, np.uint8)
    np.copyto(target, source)  # maps every page
    barrier.wait()
    copies, start_s = 0, perf_counter()
    while (seconds := perf_counter() - start_s) < _SECONDS:
        np.copyto(target, source)
        copies += 1
    results.put(copies * _BYTES / seconds / 1e9)
