"""What the training loop sees of the stream."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch

from srshards.loader.batches import DamagedSample


class PatchBatch(NamedTuple):
    """N x p x p x 3 uint8 HR patches and N x q x q x 3 uint8 input patches, on the device.

    On a CPU they may lie in a ring: they are there until the next batch is taken. `damaged` samples were replaced.
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
