"""Validate the arguments of loaders and datasets. ArgumentError says what to pass instead."""

import os
from dataclasses import dataclass
from operator import index as as_integer
from typing import Any

import torch
import torch.distributed

from srshards.errors import ArgumentError
from srshards.sampling.patches import NUM_SYMMETRIES, PatchGrid
from srshards.shards.folder import Shards
from srshards.terminal.text import plural

MAX_SEED = 2**63 - 1
MAX_PREFETCH = 64  # the pending requests of a worker must fit in a pipe, which has only 16 kB on some systems
_DEVICES = ("cpu", "cuda", "mps")


def checked_int(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return `value`, possibly a NumPy integer, as an int. ArgumentError unless it is an integer in `low` .. `high`."""
    try:
        number = as_integer(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ArgumentError(f"`{name}` {value!r}: expected an integer")
    if number < low:
        raise ArgumentError(f"`{name}` {number}: expected {low} or more")
    if high is not None and number > high:
        raise ArgumentError(f"`{name}` {number}: expected at most {high}")
    return number


def patch_grid(shards: Shards, patch_size: int, input_name: str, augment: bool, split: str = "train") -> PatchGrid:
    """Return the patch geometry of a split. ArgumentError when it does not fit or the split has no such images."""
    if not isinstance(shards, Shards):
        raise ArgumentError(f"`shards`: expected the result of srshards.open, found {shards!r:.100}")
    shards.inputs(input_name)
    patch_size = checked_int("patch_size", patch_size, 1)
    scale = shards.scale
    if patch_size % scale:
        lower, upper = patch_size - patch_size % scale, patch_size - patch_size % scale + scale
        near = f"{lower} or {upper}" if lower else str(upper)
        raise ArgumentError(f"`patch_size` {patch_size} is not divisible by the scale {scale}; try {near}")
    if patch_size > shards.hr_size:
        raise ArgumentError(
            f"`patch_size` {patch_size}: the stored HR images have {shards.hr_size} px; "
            f"pass at most that, or generate shards with a larger --size"
        )
    if not shards.split(split) and split != "train":
        raise ArgumentError(f"`split` {split}: {shards.path} has no such samples")
    if not shards.split(split):
        raise ArgumentError(
            f"{shards.path} has no training samples; generate from more photos, or with a smaller --val-fraction"
        )
    num_symmetries = NUM_SYMMETRIES if augment else 1
    if input_name == "lr":
        return PatchGrid(shards.hr_size, scale, patch_size, scale, num_symmetries)
    return PatchGrid(shards.hr_size, scale, patch_size, 1, num_symmetries, shards.up_method)


def as_device(device: str | torch.device) -> torch.device:
    """Return the PyTorch device. ArgumentError when it is not available."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(f"`device` {device!r}: expected cpu, cuda, cuda:N or mps") from error
    if found.type not in _DEVICES:
        raise ArgumentError(f"`device` {device!r}: expected cpu, cuda, cuda:N or mps")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ArgumentError(f"`device` {device!r}: this machine has {plural(torch.cuda.device_count(), 'CUDA device')}")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ArgumentError(f"`device` {device!r}: this machine has no such device")
    return found


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among all that share each step, and among those on its machine."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    def share(self, count: int) -> int:
        """Return this process's share of a resource of its machine; at least 1."""
        return max(1, count // self.local_world_size)


def ranks_of(rank: int | None, world_size: int | None, local_rank: int | None, local_world_size: int | None) -> Ranks:
    """Return the given ranks; else those of `torch.distributed` if it is initialised; else a single process.

    `torch.distributed` does not know local ranks: they are read from torchrun's environment variables. Without these,
    all processes are assumed to be on this machine.
    """
    if (rank is None) != (world_size is None):
        raise ArgumentError("`rank` and `world_size`: expected both or neither")
    if (local_rank is None) != (local_world_size is None):
        raise ArgumentError("`local_rank` and `local_world_size`: expected both or neither")
    if rank is None or world_size is None:
        rank, world_size = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
            if local_rank is None:
                local_rank, local_world_size = _torchrun_local_rank()
    if local_rank is None or local_world_size is None:
        local_rank, local_world_size = rank, world_size
    rank, world_size = _checked_rank("rank", rank, "world_size", world_size)
    local_rank, local_world_size = _checked_rank("local_rank", local_rank, "local_world_size", local_world_size)
    if local_world_size > world_size:
        raise ArgumentError(f"`local_world_size` {local_world_size}: expected at most the `world_size` {world_size}")
    return Ranks(rank, world_size, local_rank, local_world_size)


def _checked_rank(name: str, rank: int, name_of_size: str, size: int) -> tuple[int, int]:
    size, rank = checked_int(name_of_size, size, 1), checked_int(name, rank, 0)
    if rank >= size:
        raise ArgumentError(f"`{name}` {rank}: expected less than the `{name_of_size}` {size}")
    return rank, size


def _torchrun_local_rank() -> tuple[int, int] | tuple[None, None]:
    found = [os.environ.get(name, "") for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    if all(value.isdecimal() for value in found) and int(found[0]) < int(found[1]):
        return int(found[0]), int(found[1])
    return None, None
