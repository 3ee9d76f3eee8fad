"""The schedule compared with a slow reference implementation of its definition."""

import pickle
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srshards.sampling import schedule as schedule_module
from srshards.sampling.counter_rng import shuffled
from srshards.sampling.schedule import Schedule
from srshards.shards.shard_list import ShardList

SHARDS, SAMPLES = 0, 1  # keys of the two permutations
SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=25).filter(any)


def reference_blocks(
    samples: list[int], sizes: list[int], seed: int, block_bytes: int, epoch: int
) -> Iterator[list[int]]:
    """Yield the blocks of an epoch: shards in random order, as many as fit into `block_bytes`, at least one."""
    block: list[int] = []
    for shard in shuffled(len(samples), seed, epoch, SHARDS).tolist():
        if not samples[shard]:
            continue
        if block and sum(sizes[s] for s in (*block, shard)) > block_bytes:
            yield block
            block = []
        block.append(shard)
    yield block


def reference_samples(
    samples: list[int], sizes: list[int], seed: int, block_bytes: int
) -> Iterator[tuple[int, int, list[int]]]:
    """Yield the epoch, number and block (shards) of every sample, epoch after epoch."""
    firsts = [sum(samples[:shard]) for shard in range(len(samples))]
    for epoch in count():
        for index, block in enumerate(reference_blocks(samples, sizes, seed, block_bytes, epoch)):
            numbers = [firsts[shard] + position for shard in block for position in range(samples[shard])]
            for position in shuffled(len(numbers), seed, epoch, SAMPLES, index).tolist():
                yield epoch, numbers[position], block


@settings(max_examples=150)
@given(SIZES, st.data(), st.integers(1, 40), st.integers(0, 99), st.integers(1, 200), st.sampled_from([1, 3]))
def test_batches_match_the_reference(
    samples: list[int], data: st.DataObject, batch: int, seed: int, block_bytes: int, times: int
) -> None:
    """Including batches across blocks and epochs, empty shards, shards larger than a block, and any order of steps."""
    sizes = data.draw(st.lists(st.integers(0, 60), min_size=len(samples), max_size=len(samples)))
    schedule = Schedule(samples, sizes, seed, batch, times, block_bytes)
    num_batches = -(-3 * sum(samples) // batch)
    sequence = list(islice(reference_samples(samples, sizes, seed, block_bytes), num_batches * batch))
    for step in data.draw(st.permutations(range(num_batches * times))):
        draws, expected = schedule.batch(step), sequence[step // times * batch :][:batch]
        assert draws.numbers.tolist() == [number for _, number, _ in expected]
        assert draws.epochs.tolist() == [epoch * times + step % times for epoch, _, _ in expected]


def test_sample_numbers_are_pinned() -> None:
    """A run of an older version must resume with the same batches."""
    schedule = Schedule([5, 0, 7, 3, 9], [50, 1, 70, 30, 90], 4, 6, block_bytes=120)
    assert [schedule.batch(step).numbers.tolist() for step in (0, 3, 4, 11)] == [
        [4, 2, 1, 10, 7, 3],
        [17, 13, 14, 19, 20, 22],
        [12, 13, 10, 8, 5, 6],
        [10, 8, 7, 11, 9, 6],
    ]


@settings(max_examples=80)
@given(SIZES, st.integers(1, 40), st.integers(0, 99), st.integers(1, 60), st.integers(0, 30), st.sampled_from([1, 3]))
def test_blocks_from_yields_blocks_in_order_of_use(
    sizes: list[int], batch: int, seed: int, block_bytes: int, step: int, times: int
) -> None:
    schedule = Schedule(sizes, sizes, seed, batch, times, block_bytes)
    used: list[tuple[int, int, list[int]]] = []  # first sample of a block in the sequence, its first step, its shards
    previous: object = None
    for position, (epoch, _, block) in enumerate(reference_samples(sizes, sizes, seed, block_bytes)):
        if (epoch, block) != previous:
            used.append((position, position // batch * times, block))
            previous = epoch, block
        if len(used) == 60:
            break
    first_block = max(index for index, (start, _, _) in enumerate(used) if start <= step // times * batch)
    expected = [(first_step, shards) for _, first_step, shards in used[first_block:-1]]
    found = [(first_step, shards.tolist()) for first_step, shards in islice(schedule.blocks_from(step), len(expected))]
    assert found == expected


def test_the_current_and_preceding_block_contain_each_batch() -> None:
    """The fetcher relies on it: a batch may need the preceding block, up to the step in which the next one begins."""
    schedule = Schedule([7] * 12, [100] * 12, 3, 16, block_bytes=300)
    uses = list(islice(schedule.blocks_from(0), 12))
    for step in range(uses[-1][0]):
        last = max(index for index, (first, _) in enumerate(uses) if first <= step)
        first = max(index for index, (begin, _) in enumerate(uses[: last + 1]) if begin < step or index == 0)
        available = {shard for _, shards in uses[first : last + 1] for shard in shards.tolist()}
        assert {schedule.shard_of(number)[0] for number in schedule.batch(step).numbers.tolist()} <= available


def test_a_pickled_schedule_is_small_and_gives_the_same_batches() -> None:
    shards = 20_000
    schedule = Schedule([157] * shards, [256_000_000] * shards, 5, 16)
    content = pickle.dumps(schedule)
    assert len(content) < 40 * shards  # it is sent to every worker
    copy = pickle.loads(content)
    for step in (0, 1000, 197_000):
        assert copy.batch(step).numbers.tolist() == schedule.batch(step).numbers.tolist()
        assert copy.shard_of(step) == schedule.shard_of(step) == divmod(step, 157)


def test_a_pickled_shard_list_is_small_and_complete() -> None:
    count = 20_000
    names = [f"train-{number:06d}" for number in range(count)]
    content = pickle.dumps(ShardList(Path("somewhere/scale_4x"), names, range(count)))
    assert len(content) < 25 * count
    shards = pickle.loads(content)
    assert len(shards) == count and shards[7] == (Path("somewhere/scale_4x/train-000007.tar"), 7)
    assert shards[-2:] == [(Path(f"somewhere/scale_4x/train-0{n}.tar"), n) for n in (19_998, 19_999)]
    with pytest.raises(IndexError):
        shards[count]


def test_the_cost_of_a_batch_is_independent_of_the_number_of_blocks() -> None:
    """Counts executed lines, since times are not reliable on a busy machine."""
    assert lines_run(shards=50) == lines_run(shards=5_000)


def lines_run(shards: int) -> int:
    """Return how many lines of schedule.py run for a batch in the middle of an epoch."""
    schedule, lines = Schedule([10] * shards, [100] * shards, 0, 4, block_bytes=300), Counter[str]()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        lines[frame.f_code.co_filename] += event == "line"
        return trace

    step = shards // 2 * 10 // 4
    schedule.batch(step)
    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        schedule.batch(step)
    finally:
        sys.settrace(previous)
    return lines[schedule_module.__file__]


@pytest.mark.parametrize(("samples", "batch"), [([0, 0], 4), ([3], 0)])
def test_an_empty_schedule_is_refused(samples: list[int], batch: int) -> None:
    with pytest.raises(ValueError, match=f"no schedule for {sum(samples)} samples and batches of {batch}"):
        Schedule(samples, samples, 0, batch)
