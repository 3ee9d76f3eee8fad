"""How the processes of one attempt find each other, and none of an attempt before it.

torchrun starts them again when one has died, and gives them the same store of keys, in which those of the dead ones
still are: addresses where nobody listens. How often it did is counted by each machine for itself. So rank 0 gives each
attempt a name of its own, and answers whoever comes to it under that name.
"""

import os
import time
import uuid
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from srshards.errors import RunError
from trainer.distributed.rank import Place

_PATIENCE = timedelta(minutes=5)  # the slowest may still be loading PyTorch from a network drive
_LOOK_EVERY_S = 0.05
_ATTEMPT = "attempt"


class Meeting(NamedTuple):
    """The attempt's own part of the store, and whether there were attempts before it, as far as the store knows."""

    store: Store
    again: bool


def meet(place: Place) -> Meeting:
    """Returns when rank 0 and this rank know of each other. RunError when that takes more than five minutes."""
    deadline_s = time.monotonic() + _PATIENCE.total_seconds()
    try:
        whole, _, _ = next(rendezvous("env://", place.rank, place.ranks, timeout=_PATIENCE))
        store = PrefixStore("trainer", whole)
        again = place.restarts > 0 or (place.leads and store.check([_ATTEMPT]))
        attempt = _receive(store, place, deadline_s) if place.leads else _arrive(store, place, deadline_s)
    except RuntimeError as error:  # of the store: nobody is at that address, or not all came
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(_missing(place, said[0])) from error
    return Meeting(PrefixStore(attempt, store), again)


def _receive(store: Store, place: Place, deadline_s: float) -> str:
    attempt = uuid.uuid4().hex
    store.set(_ATTEMPT, attempt)
    waited_for = set(range(1, place.ranks))
    while waited_for:
        for rank in [rank for rank in waited_for if store.check([f"{attempt}/{rank}"])]:
            store.set(f"{attempt}/{rank}/{store.get(f'{attempt}/{rank}').decode()}", "")
            waited_for.remove(rank)
        _wait(place, deadline_s, f"without rank {', '.join(map(str, sorted(waited_for)))}")
    return attempt


def _arrive(store: Store, place: Place, deadline_s: float) -> str:
    me = uuid.uuid4().hex
    while True:
        attempt = store.get(_ATTEMPT).decode()  # perhaps still the former one's, whose rank 0 answers no more
        store.set(f"{attempt}/{place.rank}", me)
        if store.check([f"{attempt}/{place.rank}/{me}"]):
            return str(attempt)
        _wait(place, deadline_s, "rank 0 does not answer")


def _wait(place: Place, deadline_s: float, otherwise: str) -> None:
    if time.monotonic() > deadline_s:
        raise RunError(_missing(place, otherwise))
    time.sleep(_LOOK_EVERY_S)


def _missing(place: Place, what: str) -> str:
    return (
        f"rank {place.rank} of {place.ranks} has not met the others at {os.environ['MASTER_ADDR']}:"
        f"{os.environ['MASTER_PORT']} within {_PATIENCE.total_seconds():g} s ({what}); start the same torchrun command "
        "on every machine, and see that each can reach that address"
    )
