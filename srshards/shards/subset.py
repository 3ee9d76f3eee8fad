"""Evenly spaced subsets of samples."""

from collections.abc import Iterator, Sequence

from srshards.format import ShardRecord


def evenly_spaced(
    records: Sequence[ShardRecord], count: int, start: int = 0, step: int = 1
) -> Iterator[tuple[ShardRecord, list[int]]]:
    """Select up to `count` samples, evenly spaced over all shards; yield each shard with the positions selected in it.

    Of n samples, these are numbers floor(n i / count) for i = 0, 1, ...; `start` and `step` (a rank and the number of
    ranks) restrict them to i = start, start + step, ... Takes time linear in shards and selected samples.
    """
    total = sum(record.samples for record in records)
    count = min(count, total)
    first, number = 0, start
    for record in records:
        positions = []
        while number < count and total * number // count < first + record.samples:
            positions.append(total * number // count - first)
            number += step
        first += record.samples
        if positions:
            yield record, positions
