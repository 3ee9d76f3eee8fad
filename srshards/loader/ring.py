"""Shared memory that workers write batches to and the training process reads them from.

PyTorch's usual transfer of a batch between processes costs a new shared-memory file, page faults on both sides and a
descriptor sent through a socket: more than reading the batch. Here all memory is allocated once, and only slot numbers
are sent.
"""

import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import reduction
from typing import Any

import numpy as np

from srshards.imaging.pixels import Pixels

Wait = Callable[[], object]


class Ring:
    """Anonymous shared memory of `slots` slots of `slot_bytes` each, freed when the last process using it ends.

    It is not in /dev/shm, which is often small in containers. Processes started with the ring as an argument (by
    `fork`, `spawn` or `forkserver`) share the memory. OSError when the allocation fails; since most systems overcommit,
    check the available memory first.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.num_bytes = slots * slot_bytes
        self._slot_bytes = slot_bytes
        self._file = _anonymous_file()
        os.ftruncate(self._file, self.num_bytes)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file, 0, self.num_bytes)  # fail here, not by page faults or SIGBUS later
        self._map = mmap.mmap(self._file, self.num_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": reduction.DupFd(self._file), "_map": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _file=state["_file"].detach())
        self._map = mmap.mmap(self._file, self.num_bytes)

    def __del__(self) -> None:
        with suppress(AttributeError):  # creating the file failed
            os.close(self._file)  # the mapping lives as long as any view of a slot

    def slot(self, number: int) -> Pixels:
        """Return an array view of a slot's bytes."""
        return np.frombuffer(self._map, np.uint8, self._slot_bytes, number * self._slot_bytes)

    def all_bytes(self) -> Pixels:
        """Return an array view of the bytes of all slots."""
        return np.frombuffer(self._map, np.uint8)


def no_wait() -> None:
    """A `Wait` that returns at once."""


class FreeSlots:
    """A queue of unused slots. A slot is returned with a function that waits until it may be overwritten."""

    def __init__(self, slots: int) -> None:
        self._free: deque[tuple[int, Wait]] = deque((slot, no_wait) for slot in range(slots))

    def take(self) -> int:
        """Return the slot that has been free for longest, once it may be overwritten."""
        slot, wait = self._free.popleft()
        wait()
        return slot

    def give_back(self, slot: int, wait: Wait) -> None:
        self._free.append((slot, wait))


def _anonymous_file() -> int:
    """Return the descriptor of an anonymous file, in memory (on Linux) or on disk."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batches")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
