"""Whether there is enough memory for batches, before any is taken. ArgumentError says what to do when there is not."""

import psutil
import torch

from srshards.errors import ArgumentError
from srshards.loader.arguments import Ranks
from srshards.process.resources import available_memory_bytes
from srshards.sampling.chunks import Chunks, Rows
from srshards.terminal.sizes import format_bytes

_USABLE_SHARE = 0.8  # of the free memory: the rest is for training
LESS_FOR_WORKERS = "take fewer `workers`, a smaller `prefetch`, `batch_size`, `micro_batches` or `patches_per_sample`"


def check_batch(rows: Rows, bytes_per_row: int) -> None:
    """A batch that no number of workers makes room for."""
    if rows.batch * bytes_per_row > psutil.virtual_memory().total:
        raise ArgumentError(
            f"`batch_size` {rows.batch}: that is more than this machine's memory; try `batch_size` {rows.batch // 2} "
            f"`micro_batches` {2 * rows.micro_batches}, or much less"
        )


def check_ring(chunks: Chunks, workers: int, prefetch: int, ranks: Ranks) -> int:
    """The bytes of the ring."""
    needed = chunks.num_slots(workers) * chunks.num_bytes
    _check(needed, f"{workers} workers with `prefetch` {prefetch} need", LESS_FOR_WORKERS, ranks)
    return needed


def check_drawing(needed: int, ranks: Ranks) -> None:
    """What is needed on the CPU while batches are gathered on the device."""
    _check(needed, "`resident` needs", "take a smaller `batch_size` or `micro_batches`", ranks)


def check_resident(needed: int, num_samples: int, device: torch.device, ranks: Ranks) -> None:
    """All samples on the device."""
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else ranks.share(available_memory_bytes())
    if needed > _USABLE_SHARE * free:
        raise ArgumentError(
            f"`resident`: the images of {num_samples:,} samples take {format_bytes(needed)}, but {device} has "
            f"{format_bytes(free)} free, of which training needs some; leave `resident` out"
        )


def _check(needed: int, what: str, less: str, ranks: Ranks) -> None:
    free = ranks.share(available_memory_bytes())
    if needed > _USABLE_SHARE * free:
        raise ArgumentError(
            f"{what} {format_bytes(needed)} of memory for batches, but {format_bytes(free)} are free, and training "
            f"needs some; {less}"
        )
