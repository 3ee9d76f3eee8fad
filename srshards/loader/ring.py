"""Shared memory that workers write batches to and the training process reads them from.

PyTorch's usual transfer of a batch between processes costs a new shared-memory file, page faults on both sides and a
descriptor sent through a socket: more than reading the batch. Here all memory is allocated once, and only slot numbers
are sent.
"""

import mmap
import os
import tempfile
import weakref
from multiprocessing import reduction
from typing import Any

import numpy as np

from srshards.imaging.pixels import Pixels


class Ring:
    """Anonymous shared memory of `slots` slots of `slot_bytes` each, freed when the last process using it ends.

    It is not in /dev/shm, which is often small in containers. Processes started with the ring as an argument (by
    `fork`, `spawn` or `forkserver`) share the memory. OSError when it cannot be created.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.num_bytes = slots * slot_bytes
        self._slot_bytes = slot_bytes
        self._own(_anonymous_file())
        os.ftruncate(self._file, self.num_bytes)
        self._map = mmap.mmap(self._file, self.num_bytes)

    def _own(self, file: int) -> None:
        self._file = file
        # The mapping lives as long as any view of a slot. Not `__del__`, which also runs when `os` is gone already.
        weakref.finalize(self, os.close, file)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": reduction.DupFd(self._file), "_map": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own(state["_file"].detach())
        self._map = mmap.mmap(self._file, self.num_bytes)

    def allocate(self) -> None:
        """Allocate the memory now. OSError when that fails; later, page faults would fail with SIGBUS.

        Since most systems overcommit, check the available memory first.
        """
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file, 0, self.num_bytes)

    def slot(self, number: int) -> Pixels:
        """Return an array view of a slot's bytes."""
        return np.frombuffer(self._map, np.uint8, self._slot_bytes, number * self._slot_bytes)

    def all_bytes(self) -> Pixels:
        """Return an array view of the bytes of all slots."""
        return np.frombuffer(self._map, np.uint8)


def _anonymous_file() -> int:
    """Return the descriptor of an anonymous file, in memory (on Linux) or on disk."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batches")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
