"""What the training loop sees of the stream."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch

from srshards.loader.batches import DamagedSample


class PatchBatch(NamedTuple):
    """A batch of `PatchLoader`: N x p x p x 3 HR and N x q x q x 3 input patches, uint8 RGB, on its device.

    On a CPU they are there until the next batch is taken. Other samples stand in the place of `damaged` ones.

    >>> with PatchLoader(shards, patch_size=16, batch_size=4, input="up", workers=0) as loader:
    ...     hr, up, damaged = next(iter(loader))
    >>> hr.shape, up.shape, damaged
    (torch.Size([4, 16, 16, 3]), torch.Size([4, 16, 16, 3]), ())
    """

    hr: torch.Tensor
    input: torch.Tensor
    damaged: tuple[DamagedSample, ...]


class Source(Protocol):
    """Gives batches, and keeps account of the seconds that were spent waiting for all but the first."""

    @property
    def wait_s(self) -> float: ...

    def started(self) -> Iterator[PatchBatch]:
        """The batches of a run, in order. Returns when the first one is there, or needs no more than the others."""
