"""Memory that the workers write batches into and the training process reads them from.

A batch that goes from one process to another the usual way costs a new shared-memory file, its page faults on both
sides and a descriptor through a socket: more than reading it. Here all of it is allocated once, and what travels is the
number of a slot.
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
    """`slots` pieces of `slot_bytes` each of shared memory without a name: it goes when the last process with it does.

    It is not in /dev/shm, so that a container's small one does not matter. A process that is started with the ring
    among its arguments (by `fork`, `spawn` or `forkserver`) sees the same bytes. OSError when the system
    gives no more; most give more than there is, so whoever makes one looks at what is free first.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.num_bytes = slots * slot_bytes
        self._slot_bytes = slot_bytes
        self._file = _nameless_file()
        os.ftruncate(self._file, self.num_bytes)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file, 0, self.num_bytes)  # now or never: no page faults later, and no SIGBUS
        self._map = mmap.mmap(self._file, self.num_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": reduction.DupFd(self._file), "_map": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _file=state["_file"].detach())
        self._map = mmap.mmap(self._file, self.num_bytes)

    def __del__(self) -> None:
        with suppress(AttributeError):  # no file could be made
            os.close(self._file)  # the map stays for as long as anyone looks at a slot

    def slot(self, number: int) -> Pixels:
        """The bytes of a slot, as an array that lies in it."""
        return np.frombuffer(self._map, np.uint8, self._slot_bytes, number * self._slot_bytes)

    def everything(self) -> Pixels:
        """The bytes of all slots."""
        return np.frombuffer(self._map, np.uint8)


def nothing() -> None:
    """What has to be waited for when there is nothing to wait for."""


class FreeSlots:
    """The slots that nobody uses. Whoever gives one back says what has to be waited for before it is written to."""

    def __init__(self, slots: int) -> None:
        self._free: deque[tuple[int, Wait]] = deque((slot, nothing) for slot in range(slots))

    def take(self) -> int:
        """The one that has been free for longest."""
        slot, wait = self._free.popleft()
        wait()
        return slot

    def give_back(self, slot: int, wait: Wait) -> None:
        self._free.append((slot, wait))


def _nameless_file() -> int:
    """The descriptor of a file in memory (on Linux), or on a disk, that is in no folder."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batches")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
