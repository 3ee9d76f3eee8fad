"""Hit rate of a cache that is smaller than the shards, by simulation and by calculation.

Every epoch requests each shard once, in a new order. For a shard at the fraction x of one epoch and y of the next, the
share 1 - x(1 - y) of all shards is requested in between: those after it, and those before it that are requested again.
An LRU cache that holds the share c of all shards still has it if that is below c, which for uniform x
and y has the probability c + (1 - c) ln(1 - c). A cache that never evicts has the hit rate c.
"""

from collections import OrderedDict
from itertools import islice
from math import log

from srshards.sampling.schedule import Schedule

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
_SHARDS = 2_000
_EPOCHS = 5


def expected(share: float) -> float:
    """Return the calculated hit rate of a cache that holds this share of the shards."""
    return share + (1 - share) * log(1 - share)


def simulated(share: float) -> float:
    """Return the hit rate in the schedule's order, after the first epoch."""
    order = Schedule([1] * _SHARDS, [1] * _SHARDS, 0, 1, block_bytes=1).blocks_from(0)
    cached: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for number, (_, shards) in enumerate(islice(order, _EPOCHS * _SHARDS)):
        shard = int(shards[0])
        if shard in cached:
            cached.move_to_end(shard)
            hits += number >= _SHARDS
        else:
            cached[shard] = None
            if len(cached) > share * _SHARDS:
                cached.popitem(last=False)
    return hits / ((_EPOCHS - 1) * _SHARDS)


def hit_rates() -> list[dict[str, float]]:
    """Return the calculated and the simulated hit rate for each share of the shards that fits into the cache."""
    return [
        {"share": share, "expected": round(expected(share), 4), "simulated": round(simulated(share), 4)}
        for share in SHARES
    ]
