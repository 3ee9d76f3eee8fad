"""Samples spread evenly over shards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srshards.format import ShardRecord
from srshards.shards.subset import evenly_spaced


def shards(*sizes: int) -> list[ShardRecord]:
    return [ShardRecord(f"train-{number:06d}", "train", size, 0, "") for number, size in enumerate(sizes)]


def numbers(sizes: list[int], count: int, start: int = 0, step: int = 1) -> list[int]:
    """Return the positions of the chosen samples among all samples."""
    records = shards(*sizes)
    first = {record.name: sum(sizes[:number]) for number, record in enumerate(records)}
    chosen = evenly_spaced(records, count, start, step)
    return [first[record.name] + index for record, indices in chosen for index in indices]


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
def test_samples_are_evenly_spaced(sizes: list[int], count: int, expected: list[int]) -> None:
    assert numbers(sizes, count) == expected


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(0, 60), st.integers(1, 5))
def test_ranks_partition_the_samples_of_one_process(sizes: list[int], count: int, ranks: int) -> None:
    chosen = numbers(sizes, count)
    assert len(chosen) == min(count, sum(sizes)) == len(set(chosen)) and chosen == sorted(chosen)
    shared = [numbers(sizes, count, rank, ranks) for rank in range(ranks)]
    assert [chosen[rank::ranks] for rank in range(ranks)] == shared


def test_shards_without_chosen_samples_are_omitted() -> None:
    records = shards(2, 2, 2, 2)
    assert [(record.name[-1], indices) for record, indices in evenly_spaced(records, 2)] == [("0", [0]), ("2", [0])]


def test_time_is_linear_in_shards_and_samples() -> None:
    """A scan of all samples for every shard would take 10^10 steps."""
    records = shards(*[2] * 100_000)
    assert sum(len(indices) for _, indices in evenly_spaced(records, 100_000)) == 100_000
