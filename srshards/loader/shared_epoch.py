"""The number of an epoch, where a process and its workers all see it change."""

import torch

from srshards.loader.arguments import MAX_SEED, whole


class SharedEpoch:
    """An epoch's number in shared memory, so that it also reaches workers that live on from epoch to epoch."""

    def __init__(self) -> None:
        self._number = torch.zeros(1, dtype=torch.int64, device="cpu")  # whatever the default device is
        self._number.share_memory_()  # type: ignore[no-untyped-call]

    def __int__(self) -> int:
        return int(self._number)

    def set(self, epoch: int) -> None:
        """ArgumentError unless it is 0 or more."""
        self._number.fill_(whole("epoch", epoch, 0, MAX_SEED))
