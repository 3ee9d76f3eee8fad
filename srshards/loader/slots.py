"""The slot protocol: when a slot of the ring may be written, and when its content may be used.

A slot is always in one of these states:

    free       nobody uses it, but its last content may still be being sent to the device
    assigned   a worker writes to it at any time, until it reports the chunk
    in use     the training process sends its content to the device, or on a CPU reads it in place

Only `deliver` changes states: in this process, so workers share no state and need no locks.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import Protocol, TypeVar

Wait = Callable[[], object]  # returns once a slot's content has been sent
Chunk = TypeVar("Chunk")
ChunkIn = TypeVar("ChunkIn", contravariant=True)
Report = TypeVar("Report")
ReportOut = TypeVar("ReportOut", covariant=True)
Batches = TypeVar("Batches")


class Filler(Protocol[ChunkIn, ReportOut]):
    """Writes chunks to slots."""

    def assign(self, chunk: ChunkIn, slot: int) -> None:
        """Request a chunk in a slot, which may be written from now on. Does not wait for it."""

    def receive(self) -> ReportOut:
        """Wait for the oldest outstanding chunk, and return the report on it. Its slot is not written any more."""


def no_wait() -> None:
    """A `Wait` that returns at once."""


def deliver(
    chunks: Iterable[Chunk],
    num_slots: int,
    filler: Filler[Chunk, Report],
    send: Callable[[Chunk, int, Report], tuple[Batches, Wait]],
) -> Generator[Batches, None, None]:
    """Yield the batches of each chunk, in order.

    `send` returns the batches in a slot, and a function that waits until the slot may be overwritten. It is called
    before the slot is assigned again, which happens only when the following batches are requested: on a CPU they are
    views of the slot. An exception of `filler` or `send` ends the delivery.
    """
    remaining = iter(chunks)
    free: deque[tuple[int, Wait]] = deque((slot, no_wait) for slot in range(num_slots))
    assigned: deque[tuple[Chunk, int]] = deque()
    while True:
        for chunk in islice(remaining, len(free)):
            slot, wait = free.popleft()
            wait()
            assigned.append((chunk, slot))
            filler.assign(chunk, slot)
        if not assigned:
            return
        report = filler.receive()
        chunk, slot = assigned.popleft()
        batches, wait = send(chunk, slot, report)
        yield batches
        free.append((slot, wait))
