"""Copies to the device alone, and the loader alone: batches that arrive on the device, which nothing consumes."""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu.window import measure_steps, synchronise, window_for
from benchmarks.report import spread
from srshards import PatchLoader
from srshards.loader.worker_pool import WORKER_MODULE
from srshards.process.fork_server import GROUP_SIGNALS, start_fork_server
from srshards.shards.opening import open_shards
from trainer.training.device import choose_device

_COPIES, _WINDOWS = 10, 3


def measure_copies(device: str, num_bytes: int) -> Iterator[dict[str, Any]]:
    """Yield GB/s of copies of `num_bytes` from page-locked and from pageable memory to the device."""
    on = choose_device(device)
    target = torch.empty(num_bytes, dtype=torch.uint8, device=on)
    pageable = torch.ones(num_bytes, dtype=torch.uint8)
    if on.type == "cuda":
        pinned = pageable.pin_memory()
        yield {"pinned_gb_per_s": _copy_rate(lambda: target.copy_(pinned, non_blocking=True), num_bytes, on)}
    yield {"pageable_gb_per_s": _copy_rate(lambda: target.copy_(pageable), num_bytes, on)}


def measure_loader(
    shards: str, batch: int, patch: int, workers: int, device: str, seconds: float
) -> Iterator[dict[str, Any]]:
    """Yield the rate of patches arriving on the device, from so many workers and without any training."""
    start_fork_server(WORKER_MODULE, GROUP_SIGNALS)
    folder = open_shards(shards)
    with PatchLoader(folder, patch, batch, workers=workers, device=choose_device(device)) as loader:
        batches = loader.steps(0, 1 << 40)
        small_patch = patch // folder.scale
        batch_bytes = 3 * batch * (patch**2 + small_patch**2)
        window = window_for(loader.device, seconds, loader.memory_bytes // batch_bytes)
        found = measure_steps(lambda: next(batches).hr[0, 0, 0, 0], batch, window, loader.device, {})
    del found["finite_loss"]  # there is no loss
    rate = found["patches_per_second"]["median"]
    yield {**found, "batch_bytes": batch_bytes, "gb_per_s": round(rate * batch_bytes / batch / 1e9, 3)}


def _copy_rate(copy: Callable[[], object], num_bytes: int, device: torch.device) -> dict[str, Any]:
    def once() -> float:
        synchronise(device)
        start_s = perf_counter()
        for _ in range(_COPIES):
            copy()
        synchronise(device)
        return _COPIES * num_bytes / (perf_counter() - start_s) / 1e9

    once()
    return spread([once() for _ in range(_WINDOWS)], 2)
