"""What the arguments of a `PatchLoader` may be, and what follows from them. ArgumentError says what to give instead."""

import os
from dataclasses import dataclass
from operator import index as as_integer
from typing import Any

import torch
import torch.distributed

from srshards.errors import ArgumentError
from srshards.sampling.patches import NUM_TURNS, PatchGrid
from srshards.shards.folder import Shards

MAX_SEED = 2**63 - 1
MAX_PREFETCH = 64  # what is asked of a worker at once must fit into a pipe, of which some systems give 16 kB
_DEVICES = ("cpu", "cuda", "mps")


def whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value` as an int, NumPy's integers too. ArgumentError unless it is a whole number from `low` to `high`."""
    try:
        number = as_integer(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ArgumentError(f"`{name}` {value!r}: expected a whole number")
    if number < low:
        raise ArgumentError(f"`{name}` {number}: expected {low} or more")
    if high is not None and number > high:
        raise ArgumentError(f"`{name}` {number}: expected at most {high}")
    return number


def patch_grid(shards: Shards, patch_size: int, input_name: str, augment: bool, split: str = "train") -> PatchGrid:
    """The sizes of patches of a split. ArgumentError when none fit, or there are no such samples or images."""
    if not isinstance(shards, Shards):
        raise ArgumentError(f"`shards`: expected what srshards.open gives, found {shards!r:.100}")
    shards.inputs(input_name)
    patch_size = whole("patch_size", patch_size, 1)
    scale = shards.scale
    if patch_size % scale:
        lower, upper = patch_size - patch_size % scale, patch_size - patch_size % scale + scale
        near = f"{lower} or {upper}" if lower else str(upper)
        raise ArgumentError(f"`patch_size` {patch_size} is not divisible by the scale {scale}; try {near}")
    if patch_size > shards.hr_size:
        raise ArgumentError(
            f"`patch_size` {patch_size}: the stored HR images have {shards.hr_size} px; "
            f"take at most that, or generate shards with a larger --size"
        )
    if not shards.split(split) and split != "train":
        raise ArgumentError(f"`split` {split}: {shards.path} has no such samples")
    if not shards.split(split):
        raise ArgumentError(
            f"{shards.path} has no training samples; generate from more photos, or a smaller --val-fraction"
        )
    input_scale = scale if input_name == "lr" else 1
    return PatchGrid(shards.hr_size, scale, patch_size, input_scale, NUM_TURNS if augment else 1)


def as_device(device: str | torch.device) -> torch.device:
    """ArgumentError for a device that is not here."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(f"`device` {device!r}: expected cpu, cuda, cuda:N or mps") from error
    if found.type not in _DEVICES:
        raise ArgumentError(f"`device` {device!r}: expected cpu, cuda, cuda:N or mps")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ArgumentError(f"`device` {device!r}: there are {torch.cuda.device_count()} CUDA devices here")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ArgumentError(f"`device` {device!r}: there is no such device here")
    return found


@dataclass(frozen=True)
class Ranks:
    """Which of the processes that share each step this is, of all and of those on its machine."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    def share(self, count: int) -> int:
        """This process's part of what its machine has so many of; at least 1."""
        return max(1, count // self.local_world_size)


def ranks_of(rank: int | None, world_size: int | None, local_rank: int | None, local_world_size: int | None) -> Ranks:
    """What is given; else what `torch.distributed` says if it is initialised; else a process alone.

    Of those on one machine it knows nothing: torchrun says that in the environment, otherwise all are taken to be here.
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
                local_rank, local_world_size = _of_torchrun()
    if local_rank is None or local_world_size is None:
        local_rank, local_world_size = rank, world_size
    rank, world_size = _checked_rank("rank", rank, "world_size", world_size)
    local_rank, local_world_size = _checked_rank("local_rank", local_rank, "local_world_size", local_world_size)
    if local_world_size > world_size:
        raise ArgumentError(f"`local_world_size` {local_world_size}: expected at most the `world_size` {world_size}")
    return Ranks(rank, world_size, local_rank, local_world_size)


def _checked_rank(name: str, rank: int, name_of_size: str, size: int) -> tuple[int, int]:
    size, rank = whole(name_of_size, size, 1), whole(name, rank, 0)
    if rank >= size:
        raise ArgumentError(f"`{name}` {rank}: expected less than the `{name_of_size}` {size}")
    return rank, size


def _of_torchrun() -> tuple[int, int] | tuple[None, None]:
    found = [os.environ.get(name, "") for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    if all(value.isdecimal() for value in found) and int(found[0]) < int(found[1]):
        return int(found[0]), int(found[1])
    return None, None
