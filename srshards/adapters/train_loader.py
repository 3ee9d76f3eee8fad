"""Batches of `PatchLoader` as the frameworks' training loops take them, continued where a resumed run stopped."""

from collections.abc import Callable, Iterator, Sized
from typing import Protocol

import torch
import torch.distributed

from srshards.adapters.options import OptionNames, TrainOptions
from srshards.adapters.pair_dataset import PairDataset
from srshards.errors import ArgumentError
from srshards.loader.patch_batch import PatchBatch
from srshards.loader.patch_loader import PatchLoader

_ENDLESS = 2**59  # steps


class EpochSampler(Sized, Protocol):
    """The frameworks' EnlargedSampler: samples per epoch of this process, and the epoch that the loop is in."""

    epoch: int


class TrainLoader:
    """The training batches of a run, step after step: dicts of `lq` and `gt`, float32 RGB in [0, 1], N x 3 x H x W.

    Each iteration is over the steps of the sampler's current epoch: as many as the framework counts, the last one
    complete, or those from `first_step` on, of a run that is resumed in the middle of an epoch. The frameworks'
    prefetchers start an iteration that they abandon; nothing is read for one until its first batch is taken.

    Images reach the device as uint8 and are converted there, so batches stay valid. Step n has the patches of step n of
    the `PatchLoader`, whatever the epochs. `note` is called with a sentence for each damaged sample that another
    replaces.
    """

    def __init__(
        self,
        loader: PatchLoader,
        names: OptionNames,
        sampler: EpochSampler,
        batch_size: int,
        first_step: int,
        note: Callable[[str], object],
    ) -> None:
        self._loader = loader
        self._names = names
        self._sampler = sampler
        self._steps = -(-len(sampler) // batch_size)
        self._first_step = first_step
        self._note = note
        self._batches: Iterator[PatchBatch] = iter(())
        self._next_step = -1  # that of `_batches`
        self._damaged: set[int] = set()  # sample numbers

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Iterate over the steps of the epoch that the sampler is in now."""
        first = self._sampler.epoch * self._steps
        return self._of_steps(max(first, self._first_step), first + self._steps)

    def _of_steps(self, first: int, stop: int) -> Iterator[dict[str, torch.Tensor]]:
        for step in range(first, stop):
            with self._names.in_errors():
                if step != self._next_step:
                    self._batches = self._loader.steps(step, _ENDLESS)
                batch = next(self._batches)
            self._next_step = step + 1
            self._report(batch)
            yield {"lq": _to_float(batch.input), "gt": _to_float(batch.hr)}

    def _report(self, batch: PatchBatch) -> None:
        for number, reason in batch.damaged:
            if number not in self._damaged:
                self._damaged.add(number)
                self._note(f"Damaged sample replaced by another one: {reason}")


def open_loader(
    dataset: PairDataset, train: TrainOptions, seed: int, num_gpu: int, is_distributed: bool
) -> PatchLoader:
    """Return the loader of a training dataset, for all GPUs of a process that trains on several.

    ArgumentError for options that it cannot satisfy, under their names in srshards.
    """
    if num_gpu and not torch.cuda.is_available():
        raise ArgumentError(f"`num_gpu` {num_gpu}: this machine has no CUDA device; set it to 0 to train on the CPU")
    gpus = max(1, num_gpu) if not is_distributed else 1
    return PatchLoader(
        dataset.shards,
        train.patch_size,
        train.batch_size * gpus,
        input=dataset.input,
        workers=None if train.workers is None else train.workers * gpus,
        seed=_seed_of_rank0(seed),
        device=f"cuda:{torch.cuda.current_device()}" if num_gpu else "cpu",
        augment=train.augment,
        **train.loader,
    )


def _seed_of_rank0(seed: int) -> int:
    """Return a seed that all processes share: without `manual_seed`, each has drawn its own."""
    shared = [seed]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def _to_float(images: torch.Tensor) -> torch.Tensor:
    """Convert N x H x W x 3 uint8 to contiguous N x 3 x H x W float32 in [0, 1], on the same device."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255
