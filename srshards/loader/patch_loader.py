"""The loader: batches of patches for any training loop, resumable at any batch."""

import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Literal

import torch

from srshards.loader.arguments import MAX_PREFETCH, MAX_SEED, Ranks, as_device, checked_int, patch_grid, ranks_of
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.running import RunningBatches
from srshards.loader.sources import Sources, batch_reader
from srshards.loader.state import BatchSettings, Division, Position, dump_state, load_position
from srshards.process.forks import this_process
from srshards.process.resources import available_cpus
from srshards.sampling.chunks import Rows
from srshards.shards.folder import Shards

_MAX_STEPS = 2**60  # in effect unlimited
_CPUS_OF_A_GPU = 2  # for the threads that launch the forward pass and, in autograd, the backward pass


class PatchLoader:
    """Batches of matching HR and input patches of the training split, assembled by worker processes.

    A batch has `hr` (N x p x p x 3) and `input` (N x q x q x 3), uint8 RGB tensors on `device`, with N = `batch_size`
    and p = `patch_size`; q is p / scale for `input="lr"` and p for `input="up"`. **On a CPU, batches share a reused
    buffer: a batch is valid until the next one is taken; `clone()` tensors to keep them.** `damaged` lists samples that
    could not be read; each was replaced by another sample.

    Each `for` loop iterates over one epoch, `len(loader)` batches. Workers continue into the next epoch, which the next
    `for` loop iterates over. Samples left over at the end of an epoch start the next one, so none is dropped. After a
    `break` or a `load_state_dict`, a `for` loop iterates over the rest of the epoch.

    The batches do not depend on the number of workers, on `resident`, or on the device. With the same number of patches
    per step, each step has the same patches for any number of processes.

    Args:
        shards: the shards, from `srshards.open`.
        patch_size: edge length of the HR patches in px: divisible by the scale, at most `shards.hr_size`.
        batch_size: patches per batch of this process.
        input: `"lr"`, or `"up"` for the upsampled image, which has the size of HR. It is computed from LR if the shards
            do not have it.
        workers: number of worker processes; 0 reads in this process. Default: this process's share of the CPUs, on a
            GPU less two, but at least 1.
        seed: seed of sample order, crops and flips, 0 to 2^63 - 1.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.
        rank: rank of this process. Each rank gets different patches. Default: from `torch.distributed` if it is
            initialised, else 0.
        world_size: number of processes that share each step. Default: from `torch.distributed`, else 1.
        local_rank: rank among the processes on this machine; local rank 0 fetches shards from a store. Default: from
            torchrun, else `rank`.
        local_world_size: number of processes on this machine, which share its memory and CPUs. Default: from torchrun,
            else `world_size`.
        prefetch: batches that each worker prepares in advance, 1 to 64. For their memory, see `memory_bytes`.
        micro_batches: batches per step, for gradient accumulation. `len` and `for` count batches.
        patches_per_sample: number of consecutive steps that cut patches from the same samples, which are read once.
            Speeds up PNG and WebP shards several times, at the cost of variety within these steps.
        augment: whether to flip patches and rotate them by multiples of 90 degrees.
        resident: whether to keep all samples on the device and gather batches there, without workers.

    Raises:
        srshards.ArgumentError: a ValueError that names the argument and says what to pass instead; also when memory is
            insufficient.
        srshards.RunError: while iterating: shards that cannot be read, or workers that died. The next iteration resumes
            at the same batch.
        OSError: while iterating: a file that cannot be read.
        RuntimeError: used after `close`, in a forked process, or through an iterator that a newer one has replaced.

    Examples:
        >>> with PatchLoader(shards, patch_size=16, batch_size=4, workers=0) as loader:
        ...     batch = next(iter(loader))
        >>> batch.hr.shape, batch.input.shape, batch.hr.dtype
        (torch.Size([4, 16, 16, 3]), torch.Size([4, 8, 8, 3]), torch.uint8)
    """

    def __init__(
        self,
        shards: Shards,
        patch_size: int,
        batch_size: int,
        *,
        input: Literal["lr", "up"] = "lr",
        workers: int | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        rank: int | None = None,
        world_size: int | None = None,
        local_rank: int | None = None,
        local_world_size: int | None = None,
        prefetch: int = 16,
        micro_batches: int = 1,
        patches_per_sample: int = 1,
        augment: bool = True,
        resident: bool = False,
    ) -> None:
        batch_size = checked_int("batch_size", batch_size, 1)
        micro_batches = checked_int("micro_batches", micro_batches, 1)
        patches_per_sample = checked_int("patches_per_sample", patches_per_sample, 1)
        prefetch = checked_int("prefetch", prefetch, 1, MAX_PREFETCH)
        workers = None if workers is None else checked_int("workers", workers, 0)
        seed = checked_int("seed", seed, 0, MAX_SEED)
        grid = patch_grid(shards, patch_size, input, augment)
        ranks = ranks_of(rank, world_size, local_rank, local_world_size)
        rows = Rows(batch_size, micro_batches, ranks.rank, ranks.world_size)
        on_device = as_device(device)
        self._rows = rows
        self._sources = Sources(
            shards=shards,
            reader=batch_reader(shards, grid, input, seed, rows.global_batch, patches_per_sample),
            rows=rows,
            ranks=ranks,
            device=on_device,
            workers=_default_workers(ranks, on_device) if workers is None else workers,
            prefetch=prefetch,
            resident=resident,
        )
        self._schedule = self._sources.reader.schedule
        self._identity = BatchSettings(
            shards=shards.fingerprint(),
            decoded=shards.is_decoded,
            patch_size=grid.patch,
            input=input,
            augment=bool(augment),
            seed=seed,
            patches_per_step=rows.global_batch,
            patches_per_sample=patches_per_sample,
        )
        self._memory_bytes = self._sources.checked_memory()
        self._pid, self._process = os.getpid(), this_process()
        self._is_closed = False
        self._taken = 0  # batches, since the first of step 0
        self._has_started = False
        self._iterations = 0  # only the latest iteration may take batches
        self._running = RunningBatches(self._sources.source)

    def __len__(self) -> int:
        """Batches per epoch: as many complete steps as the samples allow, at least one."""
        return self.micro_batches * max(1, self.num_samples // self.patches_per_step)

    def __iter__(self) -> Iterator[PatchBatch]:
        """Iterate over the batches up to the end of the epoch. Workers start when the first batch is requested."""
        self._check_usable()
        self._iterations += 1
        return _Iteration(self, self._iterations)

    def steps(self, first: int, stop: int) -> Iterator[PatchBatch]:
        """Iterate over the batches of steps first .. stop-1, ignoring epochs: `micro_batches` per step.

        Blocks until the first batch is ready. Nothing beyond `stop` is read. The next `for` loop continues after it.
        """
        first = checked_int("first", first, 0)
        stop = checked_int("stop", stop, first, _MAX_STEPS)
        self._check_usable()
        self._running.end()
        self._taken = first * self.micro_batches
        self._iterations += 1
        self._begin(stop)
        return _Iteration(self, self._iterations, stop, stop * self.micro_batches)

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        return self._sources.device

    @property
    def workers(self) -> int:
        """Number of worker processes."""
        return self._sources.workers

    @property
    def num_samples(self) -> int:
        """Number of training samples, each of which occurs once per epoch."""
        return self._schedule.num_samples

    @property
    def batch_size(self) -> int:
        """Patches per batch of this process."""
        return self._rows.batch

    @property
    def micro_batches(self) -> int:
        """Batches per step of this process."""
        return self._rows.micro_batches

    @property
    def world_size(self) -> int:
        """Number of processes that share each step."""
        return self._rows.ranks

    @property
    def patches_per_step(self) -> int:
        """Patches per step of all processes together."""
        return self._rows.global_batch

    @property
    def patches_per_sample(self) -> int:
        """Number of consecutive steps that use the same samples."""
        return self._schedule.patches_per_sample

    @property
    def memory_bytes(self) -> int:
        """Size of the memory shared with the workers; with `resident`, the size of all samples on the device."""
        return self._memory_bytes

    @property
    def wait_s(self) -> float:
        """Seconds that iterations spent waiting for batches, without the first batch after each start of workers."""
        return self._running.wait_s

    def num_steps(self, epochs: int) -> int:
        """Return the number of steps in `epochs` consecutive epochs, a multiple of `patches_per_sample`."""
        return self._schedule.num_steps(epochs)

    def cache_bytes(self, other_shards: int = 0) -> int:
        """Return the required cache capacity in bytes, including `other_shards` bytes; 0 without a cache."""
        return self._sources.cache_bytes(other_shards)

    def state_dict(self) -> dict[str, int | str | bool]:
        """Return the position after the last batch taken, as JSON-compatible values; it is the same on all ranks."""
        position = Position(*divmod(self._taken, self.micro_batches))
        return dump_state(position, self._identity, Division(self.micro_batches, self.world_size))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`. Must be called before the first batch is taken.

        Device, workers, prefetch and the location of the shards may differ, and so may the number of processes if the
        number of patches per step is the same. ValueError, listing the differences, if the batches differ.
        """
        self._check_usable()
        if self._has_started:
            raise RuntimeError("load_state_dict: batches were already taken; create a new PatchLoader for this state")
        division = Division(self.micro_batches, self.world_size)
        position = load_position(state, self._identity, division)
        self._taken = position.step * self.micro_batches + position.micro_batch

    def close(self) -> None:
        """Stop the workers. The last batch taken stays valid."""
        if self._process is this_process():  # a forked process does not own the workers
            self._running.end()
        self._is_closed = True

    def __enter__(self) -> "PatchLoader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, stop: int) -> None:
        """Ensure that batches from the current position up to this step are being prepared."""
        self._has_started = True
        step, skipped = divmod(self._taken, self.micro_batches)
        self._running.begin(step, stop, skipped)

    def _next(self, iteration: "_Iteration") -> PatchBatch:
        self._check_usable()
        if iteration.number != self._iterations:
            raise RuntimeError("this PatchLoader has a newer iterator: only the latest one can take batches")
        if iteration.end is None:
            iteration.end = (self._taken // len(self) + 1) * len(self)
        if self._taken >= iteration.end:
            self._running.end_at(self._taken // self.micro_batches)
            raise StopIteration
        self._begin(iteration.stop)
        batch = self._running.take()
        self._taken += 1
        return batch

    def _check_usable(self) -> None:
        if self._process is not this_process():
            raise RuntimeError(
                f"this PatchLoader was created in process {self._pid} and cannot be used in the forked process "
                f"{os.getpid()}; create one in each process"
            )
        if self._is_closed:
            raise RuntimeError("this PatchLoader is closed; create a new one")


def _default_workers(ranks: Ranks, device: torch.device) -> int:
    share = ranks.share(available_cpus())
    return share if device.type == "cpu" else max(1, share - _CPUS_OF_A_GPU)


class _Iteration(Iterator[PatchBatch]):
    """An iterator that ends when the loader's batch count reaches `end`, by default the end of the current epoch.

    Workers prepare batches up to the step `stop`.
    """

    def __init__(self, loader: PatchLoader, number: int, stop: int = _MAX_STEPS, end: int | None = None) -> None:
        self._loader = loader
        self.number = number
        self.stop = stop
        self.end = end

    def __next__(self) -> PatchBatch:
        return self._loader._next(self)
