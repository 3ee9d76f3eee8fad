"""An epoch number shared between a process and its workers."""

import torch

from srshards.loader.arguments import MAX_SEED, checked_int


class SharedEpoch:
    """An epoch number in shared memory, so that changes reach persistent workers too."""

    def __init__(self) -> None:
        self._number = torch.zeros(1, dtype=torch.int64, device="cpu")  # whatever the default device is
        self._number.share_memory_()  # type: ignore[no-untyped-call]

    def __int__(self) -> int:
        return int(self._number)

    def set(self, epoch: int) -> None:
        """Set the epoch. ArgumentError unless it is 0 or more."""
        self._number.fill_(checked_int("epoch", epoch, 0, MAX_SEED))
