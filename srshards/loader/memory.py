"""Check the available memory before any is allocated for batches. ArgumentError says what to reduce."""

import psutil
import torch

from srshards.errors import ArgumentError
from srshards.loader.arguments import Ranks
from srshards.process.resources import available_memory_bytes
from srshards.sampling.chunks import Chunks, Rows
from srshards.terminal.sizes import format_bytes

_USABLE_SHARE = 0.8  # of the available memory: the rest is for training
REDUCE_WORKER_MEMORY = (
    "use fewer `workers`, or a smaller `prefetch`, `batch_size`, `micro_batches` or `patches_per_sample`"
)


def check_batch(rows: Rows, bytes_per_row: int) -> None:
    """Check that a single batch fits in the machine's memory."""
    if rows.batch * bytes_per_row > psutil.virtual_memory().total:
        raise ArgumentError(
            f"`batch_size` {rows.batch}: a batch exceeds this machine's memory; try `batch_size` {rows.batch // 2} "
            f"`micro_batches` {2 * rows.micro_batches}, or much less"
        )


def check_ring(chunks: Chunks, workers: int, prefetch: int, ranks: Ranks) -> int:
    """Check the memory for the ring, and return its size in bytes."""
    needed = chunks.num_slots(workers) * chunks.num_bytes
    _check(needed, f"`workers` {workers} and `prefetch` {prefetch} need", REDUCE_WORKER_MEMORY, ranks)
    return needed


def check_crop_memory(needed: int, ranks: Ranks) -> None:
    """Check the CPU memory for choosing crops while batches are gathered on the device."""
    _check(needed, "`resident` needs", "use a smaller `batch_size` or `micro_batches`", ranks)


def check_resident(needed: int, num_samples: int, device: torch.device, ranks: Ranks) -> None:
    """Check that all samples fit in the memory of the device."""
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else ranks.share(available_memory_bytes())
    if needed > _USABLE_SHARE * free:
        raise ArgumentError(
            f"`resident`: the images of {num_samples:,} samples take {format_bytes(needed)}, but {device} has "
            f"{format_bytes(free)} free, and training needs some; omit `resident`"
        )


def _check(needed: int, what: str, advice: str, ranks: Ranks) -> None:
    free = ranks.share(available_memory_bytes())
    if needed > _USABLE_SHARE * free:
        raise ArgumentError(
            f"{what} {format_bytes(needed)} of memory for batches, but {format_bytes(free)} are free, and training "
            f"needs some; {advice}"
        )
