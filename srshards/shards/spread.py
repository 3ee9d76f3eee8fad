"""A few samples of many, chosen such that they stand for all."""

from collections.abc import Iterator, Sequence

from srshards.format import ShardRecord


def spread_evenly(
    records: Sequence[ShardRecord], count: int, start: int = 0, step: int = 1
) -> Iterator[tuple[ShardRecord, list[int]]]:
    """Up to `count` samples, spread evenly over all shards: each shard that has some of them, and their places in it.

    Of n samples, number floor(n i / count) for i = 0, 1, ...; with `start` and `step` (a rank and the number of ranks),
    only those of i = start, start + step, ... Takes time linear in shards and chosen samples.
    """
    total = sum(record.samples for record in records)
    count = min(count, total)
    first, number = 0, start
    for record in records:
        places = []
        while number < count and total * number // count < first + record.samples:
            places.append(total * number // count - first)
            number += step
        first += record.samples
        if places:
            yield record, places
