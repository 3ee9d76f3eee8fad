"""The loader: batches of patches for any training loop, in an order that can be taken up again at any batch."""

import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Literal

import torch

from srshards.loader.arguments import MAX_PREFETCH, MAX_SEED, as_device, patch_grid, ranks_of, whole
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.running import RunningBatches
from srshards.loader.sources import Sources, batch_reader
from srshards.loader.state import Batches, Division, Position, as_plain, position_in
from srshards.process.resources import available_cpus
from srshards.sampling.chunks import Rows
from srshards.shards.folder import Shards

_ENDLESS = 2**60  # steps


class PatchLoader:
    """Batches of matching HR and input patches of the training split, made by worker processes.

    A batch has `hr` (N x p x p x 3) and `input` (N x q x q x 3), uint8 RGB tensors on `device`, with N = `batch_size`
    and p = `patch_size`; q is p / scale for `input="lr"` and p for `input="up"`. **On a CPU they lie in memory that is
    used again: a batch is there until the next one is taken; `clone()` what is to stay.** `damaged` names samples that
    could not be read: another one stands in the place of each.

    Each `for` goes through one epoch, `len(loader)` batches, and the next `for` goes on with the next epoch, for which
    the workers read in the meantime. Samples that fill no batch at the end of an epoch are the first of the next one:
    none is left out. After a `break`, or a `load_state_dict`, a `for` goes through what is left of the epoch.

    The batches are the same for any number of workers, for `resident` or not, and on any device; each step's batches
    together are the same for any number of processes with the same number of patches per step.

    Args:
        shards: what `srshards.open` gave.
        patch_size: edge of the HR patches in px: divisible by the scale, at most `shards.hr_size`.
        batch_size: patches of a batch, of this process.
        input: `"lr"`, or `"up"` for the image that was enlarged again to HR's size.
        workers: processes that make batches; 0: this one does; by default this process's share of the CPUs.
        seed: draws order, crops and flips, 0 to 2^63 - 1.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.
        rank, world_size: which of how many processes that share each step this is: by default what
            `torch.distributed` says if it is initialised, else one alone. Each gets patches of its own.
        local_rank, local_world_size: the same of the processes on this machine, which share its memory and CPUs, and
            of which the first fetches shards from a store; by default what torchrun says, else as above.
        prefetch: batches that are made in advance by each worker, 1 to 64. They cost memory: see `memory_bytes`.
        micro_batches: batches that make a step, for gradients that are accumulated. `len` and `for` count batches.
        patches_per_sample: so many steps in a row cut their patches from the same samples, each of which is read once.
            Makes PNG and WebP shards several times as fast, at the cost of variety within these steps.
        augment: whether patches are flipped and turned by multiples of 90 degrees.
        resident: whether all samples are kept on the device and batches gathered there, without workers.

    Raises:
        srshards.ArgumentError: a ValueError that names the argument and says what to give instead; also for want of
            memory. A later iteration raises OSError or srshards.errors.RunError for shards that cannot be read and for
            workers that died, after which another iteration begins again where this one was.
        RuntimeError: used after `close`, in a forked process, or through an iterator that a newer one has replaced.

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
        batch_size = whole("batch_size", batch_size, 1)
        micro_batches = whole("micro_batches", micro_batches, 1)
        patches_per_sample = whole("patches_per_sample", patches_per_sample, 1)
        prefetch = whole("prefetch", prefetch, 1, MAX_PREFETCH)
        workers = None if workers is None else whole("workers", workers, 0)
        seed = whole("seed", seed, 0, MAX_SEED)
        grid = patch_grid(shards, patch_size, input, augment)
        ranks = ranks_of(rank, world_size, local_rank, local_world_size)
        rows = Rows(batch_size, micro_batches, ranks.rank, ranks.world_size)
        self._rows = rows
        self._sources = Sources(
            shards=shards,
            reader=batch_reader(shards, grid, input, seed, rows.global_batch, patches_per_sample),
            rows=rows,
            ranks=ranks,
            device=as_device(device),
            workers=ranks.share(available_cpus()) if workers is None else workers,
            prefetch=prefetch,
            resident=resident,
        )
        self._schedule = self._sources.reader.schedule
        self._identity = Batches(
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
        self._pid = os.getpid()
        self._is_closed = False
        self._taken = 0  # batches, since the first of step 0
        self._is_begun = False
        self._iterations = 0  # the last one alone may take batches
        self._running = RunningBatches(self._sources.source)

    def __len__(self) -> int:
        """Batches of an epoch: as many whole steps as there are samples for, at least one."""
        return self.micro_batches * max(1, self.num_samples // self.patches_per_step)

    def __iter__(self) -> Iterator[PatchBatch]:
        """The batches up to the end of the epoch. Workers are started when the first is asked for."""
        self._refuse_elsewhere()
        self._iterations += 1
        return _Iteration(self, self._iterations)

    def steps(self, first: int, stop: int) -> Iterator[PatchBatch]:
        """The batches of the steps first .. stop-1, without epochs: `micro_batches` of each step.

        Returns when the first one is there. Nothing beyond is read. The next `for` goes on from where this ends.
        """
        first = whole("first", first, 0)
        stop = whole("stop", stop, first, _ENDLESS)
        self._refuse_elsewhere()
        self._running.end()
        self._taken = first * self.micro_batches
        self._iterations += 1
        self._begin(stop)
        return _Iteration(self, self._iterations, stop, stop * self.micro_batches)

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self._sources.device

    @property
    def workers(self) -> int:
        """Processes that make batches."""
        return self._sources.workers

    @property
    def num_samples(self) -> int:
        """Samples of the training split, which an epoch shows once each."""
        return self._schedule.num_samples

    @property
    def batch_size(self) -> int:
        """Patches of a batch."""
        return self._rows.batch

    @property
    def micro_batches(self) -> int:
        """Batches of a step, of this process."""
        return self._rows.micro_batches

    @property
    def world_size(self) -> int:
        """Processes that share each step."""
        return self._rows.ranks

    @property
    def patches_per_step(self) -> int:
        """Patches of a step, of all processes."""
        return self._rows.global_batch

    @property
    def patches_per_sample(self) -> int:
        """Steps in a row that show the same samples."""
        return self._schedule.patches_per_sample

    @property
    def memory_bytes(self) -> int:
        """Memory for batches under way, which the workers share; with `resident`, that of all samples on the device."""
        return self._memory_bytes

    @property
    def wait_s(self) -> float:
        """Seconds that iterations have spent waiting for batches, but for the first of workers that were started."""
        return self._running.wait_s

    def num_steps(self, epochs: int) -> int:
        """Steps in so many epochs, a multiple of `patches_per_sample`, with no sample left out between them."""
        return self._schedule.num_steps(epochs)

    def cache_bytes(self, other_shards: int = 0) -> int:
        """What a cache has to hold at once, with so many bytes of other shards; 0 for shards that are not cached."""
        return self._sources.cache_bytes(other_shards)

    def state_dict(self) -> dict[str, int | str | bool]:
        """Where the batches that were taken so far end, as plain values that JSON knows; the same on all ranks."""
        position = Position(*divmod(self._taken, self.micro_batches))
        return as_plain(position, self._identity, Division(self.micro_batches, self.world_size))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the loader was whose `state_dict` this is. No batch has been taken yet.

        Device, workers, prefetch and where the shards lie may be others, and so may the number of processes if a
        step has the same number of patches. ValueError, which names what differs, for the state of other batches.
        """
        self._refuse_elsewhere()
        if self._is_begun:
            raise RuntimeError("load_state_dict: batches were already taken; make a new PatchLoader for this state")
        division = Division(self.micro_batches, self.world_size)
        position = position_in(state, self._identity, division)
        self._taken = position.step * self.micro_batches + position.micro_batch

    def close(self) -> None:
        """End the workers. The batch that was taken last stays valid."""
        if os.getpid() == self._pid:  # a fork's copies are not its own
            self._running.end()
        self._is_closed = True

    def __enter__(self) -> "PatchLoader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, stop: int) -> None:
        """Have batches up to this step under way, from where the last one was taken."""
        self._is_begun = True
        step, skipped = divmod(self._taken, self.micro_batches)
        self._running.begin(step, stop, skipped)

    def _next(self, iteration: "_Iteration") -> PatchBatch:
        self._refuse_elsewhere()
        if iteration.number != self._iterations:
            raise RuntimeError("a newer iterator over this PatchLoader was begun: one at a time can take its batches")
        if iteration.end is None:
            iteration.end = (self._taken // len(self) + 1) * len(self)
        if self._taken >= iteration.end:
            self._running.end_at(self._taken // self.micro_batches)
            raise StopIteration
        self._begin(iteration.stop)
        batch = self._running.take()
        self._taken += 1
        return batch

    def _refuse_elsewhere(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this PatchLoader was made in process {self._pid}, and cannot be used in {os.getpid()}, which was "
                "forked from it: make one in each process"
            )
        if self._is_closed:
            raise RuntimeError("this PatchLoader is closed")


class _Iteration(Iterator[PatchBatch]):
    """Takes batches until `end` were taken of the loader in all: by default, those of the epoch that it is in then.

    Workers go on up to the step `stop`.
    """

    def __init__(self, loader: PatchLoader, number: int, stop: int = _ENDLESS, end: int | None = None) -> None:
        self._loader = loader
        self.number = number
        self.stop = stop
        self.end = end

    def __next__(self) -> PatchBatch:
        return self._loader._next(self)
