"""The batches that a training loop receives, and the interface of their sources."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch

from srshards.loader.batches import DamagedSample


class PatchBatch(NamedTuple):
    """A batch of `PatchLoader`, on its device. On a CPU the tensors are valid until the next batch is taken.

    Attributes:
        hr: HR patches, N x p x p x 3 uint8 RGB.
        input: input patches, N x q x q x 3 uint8 RGB; q is p / scale for LR, and p for the upsampled image.
        damaged: samples that could not be read and were replaced by others.

    Examples:
        >>> with PatchLoader(shards, patch_size=16, batch_size=4, input="up", workers=0) as loader:
        ...     hr, up, damaged = next(iter(loader))
        >>> hr.shape, up.shape, damaged
        (torch.Size([4, 16, 16, 3]), torch.Size([4, 16, 16, 3]), ())
    """

    hr: torch.Tensor
    input: torch.Tensor
    damaged: tuple[DamagedSample, ...]


class Source(Protocol):
    """A source of batches. `wait_s` is the time spent waiting for them, excluding the first."""

    @property
    def wait_s(self) -> float: ...

    def started(self) -> Iterator[PatchBatch]:
        """Start, then return an iterator over the batches. Time spent starting does not count as waiting."""
