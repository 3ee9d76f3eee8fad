"""Samples that are spread evenly over shards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srshards.format import ShardRecord
from srshards.shards.subset import evenly_spaced


def shards(*sizes: int) -> list[ShardRecord]:
    return [ShardRecord(f"train-{number:06d}", "train", size, 0, "") for number, size in enumerate(sizes)]


def numbers(sizes: list[int], count: int, start: int = 0, step: int = 1) -> list[int]:
    """Which of all samples are chosen."""
    records = shards(*sizes)
    first = {record.name: sum(sizes[:number]) for number, record in enumerate(records)}
    return [
        first[record.name] + place for record, places in evenly_spaced(records, count, start, step) for place in places
    ]


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([10], 3, [0, 3, 6]),
        ([4, 0, 6], 5, [0, 2, 4, 6, 8]),
        ([3, 3], 6, [0, 1, 2, 3, 4, 5]),
        ([3, 3], 99, [0, 1, 2, 3, 4, 5]),
        ([100, 1, 100], 2, [0, 100]),
        ([5, 5], 0, []),
        ([], 5, []),
        ([0, 0], 5, []),
    ],
)
def test_some_are_chosen_at_equal_distances(sizes: list[int], count: int, expected: list[int]) -> None:
    assert numbers(sizes, count) == expected


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(0, 60), st.integers(1, 5))
def test_ranks_share_what_one_would_have(sizes: list[int], count: int, ranks: int) -> None:
    alone = numbers(sizes, count)
    assert len(alone) == min(count, sum(sizes)) == len(set(alone)) and alone == sorted(alone)
    shared = [numbers(sizes, count, rank, ranks) for rank in range(ranks)]
    assert [alone[rank::ranks] for rank in range(ranks)] == shared


def test_shards_without_a_chosen_sample_are_left_out() -> None:
    records = shards(2, 2, 2, 2)
    assert [(record.name[-1], places) for record, places in evenly_spaced(records, 2)] == [("0", [0]), ("2", [0])]


def test_it_takes_time_that_grows_with_shards_and_samples_alone() -> None:
    """A scan of all wanted samples for each shard would ask 10^10 times."""
    records = shards(*[2] * 100_000)
    assert sum(len(places) for _, places in evenly_spaced(records, 100_000)) == 100_000
