"""Rendezvous of the ranks of one attempt, isolated from earlier attempts.

When a rank dies, torchrun restarts all of them with the same key-value store, which still holds the addresses of the
dead ranks, and every machine counts restarts separately. Rank 0 therefore gives each attempt a unique name and admits
the ranks that join under it.
"""

import os
import time
import uuid
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from srshards.errors import RunError
from trainer.distributed.rank import RankInfo

_TIMEOUT = timedelta(minutes=5)  # the slowest rank may still be importing PyTorch from a network drive
_POLL_EVERY_S = 0.05
_ATTEMPT = "attempt"


class Attempt(NamedTuple):
    """The attempt's private part of the store, and whether this rank knows of an earlier attempt."""

    store: Store
    restarted: bool


def join_attempt(rank_info: RankInfo) -> Attempt:
    """Wait until rank 0 has admitted this rank. RunError after five minutes."""
    deadline_s = time.monotonic() + _TIMEOUT.total_seconds()
    try:
        root_store, _, _ = next(rendezvous("env://", rank_info.rank, rank_info.world_size, timeout=_TIMEOUT))
        store = PrefixStore("trainer", root_store)
        restarted = rank_info.restarts > 0 or (rank_info.is_rank0 and store.check([_ATTEMPT]))
        name = (_admit_ranks if rank_info.is_rank0 else _join)(store, rank_info, deadline_s)
    except RuntimeError as error:  # of the store: no server at that address, or too few ranks
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(_failure_message(rank_info, lines[0])) from error
    return Attempt(PrefixStore(name, store), restarted)


def _admit_ranks(store: Store, rank_info: RankInfo, deadline_s: float) -> str:
    """On rank 0: name the attempt, acknowledge every other rank, and return the name."""
    attempt = uuid.uuid4().hex
    store.set(_ATTEMPT, attempt)
    missing = set(range(1, rank_info.world_size))
    while missing:
        for rank in [rank for rank in missing if store.check([f"{attempt}/{rank}"])]:
            store.set(f"{attempt}/{rank}/{store.get(f'{attempt}/{rank}').decode()}", "")
            missing.remove(rank)
        _wait(rank_info, deadline_s, f"missing rank {', '.join(map(str, sorted(missing)))}")
    return attempt


def _join(store: Store, rank_info: RankInfo, deadline_s: float) -> str:
    """On the other ranks: join the current attempt, wait until rank 0 acknowledges it, and return its name."""
    token = uuid.uuid4().hex
    while True:
        attempt = store.get(_ATTEMPT).decode()  # may still be the previous one, which is never acknowledged
        store.set(f"{attempt}/{rank_info.rank}", token)
        if store.check([f"{attempt}/{rank_info.rank}/{token}"]):
            return str(attempt)
        _wait(rank_info, deadline_s, "rank 0 does not respond")


def _wait(rank_info: RankInfo, deadline_s: float, reason: str) -> None:
    if time.monotonic() > deadline_s:
        raise RunError(_failure_message(rank_info, reason))
    time.sleep(_POLL_EVERY_S)


def _failure_message(rank_info: RankInfo, reason: str) -> str:
    return (
        f"rank {rank_info.rank} of {rank_info.world_size} could not join the others at {os.environ['MASTER_ADDR']}:"
        f"{os.environ['MASTER_PORT']} within {_TIMEOUT.total_seconds():g} s ({reason}); start the same torchrun "
        "command on every machine, and check that each can reach that address"
    )
