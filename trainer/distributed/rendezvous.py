"""Rendezvous of the ranks of one attempt, kept apart from those of earlier attempts.

torchrun starts all ranks again when one has died, and gives them the same key-value store, which still holds the
addresses of the dead ones, where nobody listens. Each machine counts the restarts for itself. So rank 0 gives each
attempt a name of its own, and answers every rank that joins under that name.
"""

import os
import time
import uuid
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from srshards.errors import RunError
from trainer.distributed.rank import RankInfo

_TIMEOUT = timedelta(minutes=5)  # the slowest may still be loading PyTorch from a network drive
_POLL_EVERY_S = 0.05
_ATTEMPT = "attempt"


class Attempt(NamedTuple):
    """The attempt's own part of the store, and whether there were attempts before it, as far as the store knows."""

    store: Store
    restarted: bool


def join_attempt(rank_info: RankInfo) -> Attempt:
    """Returns when rank 0 and this rank know of each other. RunError when that takes more than five minutes."""
    deadline_s = time.monotonic() + _TIMEOUT.total_seconds()
    try:
        whole, _, _ = next(rendezvous("env://", rank_info.rank, rank_info.world_size, timeout=_TIMEOUT))
        store = PrefixStore("trainer", whole)
        restarted = rank_info.restarts > 0 or (rank_info.is_rank0 and store.check([_ATTEMPT]))
        name = (_admit_ranks if rank_info.is_rank0 else _join)(store, rank_info, deadline_s)
    except RuntimeError as error:  # of the store: nobody is at that address, or not all came
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(_missing(rank_info, said[0])) from error
    return Attempt(PrefixStore(name, store), restarted)


def _admit_ranks(store: Store, rank_info: RankInfo, deadline_s: float) -> str:
    """Rank 0's part: name the attempt, and answer each other rank. Returns the name."""
    attempt = uuid.uuid4().hex
    store.set(_ATTEMPT, attempt)
    waited_for = set(range(1, rank_info.world_size))
    while waited_for:
        for rank in [rank for rank in waited_for if store.check([f"{attempt}/{rank}"])]:
            store.set(f"{attempt}/{rank}/{store.get(f'{attempt}/{rank}').decode()}", "")
            waited_for.remove(rank)
        _wait(rank_info, deadline_s, f"without rank {', '.join(map(str, sorted(waited_for)))}")
    return attempt


def _join(store: Store, rank_info: RankInfo, deadline_s: float) -> str:
    """Another rank's part: ask under the attempt's name until rank 0 answers. Returns the name."""
    me = uuid.uuid4().hex
    while True:
        attempt = store.get(_ATTEMPT).decode()  # perhaps still the former one's, whose rank 0 answers no more
        store.set(f"{attempt}/{rank_info.rank}", me)
        if store.check([f"{attempt}/{rank_info.rank}/{me}"]):
            return str(attempt)
        _wait(rank_info, deadline_s, "rank 0 does not answer")


def _wait(rank_info: RankInfo, deadline_s: float, otherwise: str) -> None:
    if time.monotonic() > deadline_s:
        raise RunError(_missing(rank_info, otherwise))
    time.sleep(_POLL_EVERY_S)


def _missing(rank_info: RankInfo, what: str) -> str:
    return (
        f"rank {rank_info.rank} of {rank_info.world_size} has not met the others at {os.environ['MASTER_ADDR']}:"
        f"{os.environ['MASTER_PORT']} within {_TIMEOUT.total_seconds():g} s ({what}); start the same torchrun command "
        "on every machine, and see that each can reach that address"
    )
