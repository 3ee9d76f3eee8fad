"""The schedule by its definition: a slow one, written down here, gives the same numbers for ever."""

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

SHARDS, SAMPLES = 0, 1  # the words that keep the two permutations apart
SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=25).filter(any)


def slow_blocks(samples: list[int], sizes: list[int], seed: int, block_bytes: int, epoch: int) -> Iterator[list[int]]:
    """Shards in their drawn order, as many as fit into a block, at least one."""
    block: list[int] = []
    for shard in shuffled(len(samples), seed, epoch, SHARDS).tolist():
        if not samples[shard]:
            continue
        if block and sum(sizes[s] for s in (*block, shard)) > block_bytes:
            yield block
            block = []
        block.append(shard)
    yield block


def slow_line(
    samples: list[int], sizes: list[int], seed: int, block_bytes: int
) -> Iterator[tuple[int, int, list[int]]]:
    """The epoch and the number of every sample, and the shards of its block, epoch after epoch."""
    firsts = [sum(samples[:shard]) for shard in range(len(samples))]
    for epoch in count():
        for index, block in enumerate(slow_blocks(samples, sizes, seed, block_bytes, epoch)):
            numbers = [firsts[shard] + place for shard in block for place in range(samples[shard])]
            for place in shuffled(len(numbers), seed, epoch, SAMPLES, index).tolist():
                yield epoch, numbers[place], block


@settings(max_examples=150)
@given(SIZES, st.data(), st.integers(1, 40), st.integers(0, 99), st.integers(1, 200), st.sampled_from([1, 3]))
def test_batches_are_those_of_the_definition(
    samples: list[int], data: st.DataObject, batch: int, seed: int, block_bytes: int, times: int
) -> None:
    """Also where batches span blocks and epochs, shards are empty or larger than a block, and steps come anyhow."""
    sizes = data.draw(st.lists(st.integers(0, 60), min_size=len(samples), max_size=len(samples)))
    schedule = Schedule(samples, sizes, seed, batch, times, block_bytes)
    stretches = -(-3 * sum(samples) // batch)
    line = list(islice(slow_line(samples, sizes, seed, block_bytes), stretches * batch))
    for step in data.draw(st.permutations(range(stretches * times))):
        draws, expected = schedule.batch(step), line[step // times * batch :][:batch]
        assert draws.numbers.tolist() == [number for _, number, _ in expected]
        assert draws.epochs.tolist() == [epoch * times + step % times for epoch, _, _ in expected]


def test_numbers_stay_what_they_were() -> None:
    """A run of an older version has to go on with the batches that it would have had."""
    schedule = Schedule([5, 0, 7, 3, 9], [50, 1, 70, 30, 90], 4, 6, block_bytes=120)
    assert [schedule.batch(step).numbers.tolist() for step in (0, 3, 4, 11)] == [
        [4, 2, 1, 10, 7, 3],
        [17, 13, 14, 19, 20, 22],
        [12, 13, 10, 8, 5, 6],
        [10, 8, 7, 11, 9, 6],
    ]


@settings(max_examples=80)
@given(SIZES, st.integers(1, 40), st.integers(0, 99), st.integers(1, 60), st.integers(0, 30), st.sampled_from([1, 3]))
def test_blocks_come_in_the_order_of_use(
    sizes: list[int], batch: int, seed: int, block_bytes: int, step: int, times: int
) -> None:
    schedule = Schedule(sizes, sizes, seed, batch, times, block_bytes)
    used: list[tuple[int, int, list[int]]] = []  # where a block begins on the line, its first step, its shards
    former: object = None
    for position, (epoch, _, block) in enumerate(slow_line(sizes, sizes, seed, block_bytes)):
        if (epoch, block) != former:
            used.append((position, position // batch * times, block))
            former = epoch, block
        if len(used) == 60:
            break
    begins_in = max(index for index, (start, _, _) in enumerate(used) if start <= step // times * batch)
    expected = [(first_step, shards) for _, first_step, shards in used[begins_in:-1]]
    found = [(first_step, shards.tolist()) for first_step, shards in islice(schedule.blocks_from(step), len(expected))]
    assert found == expected


def test_whoever_has_the_blocks_that_a_step_needs_can_read_its_batch() -> None:
    """What a fetcher relies on: a batch needs the block before, up to the step that the next one begins in."""
    schedule = Schedule([7] * 12, [100] * 12, 3, 16, block_bytes=300)
    uses = list(islice(schedule.blocks_from(0), 12))
    for step in range(uses[-1][0]):
        last = max(index for index, (first, _) in enumerate(uses) if first <= step)
        first = max(index for index, (begin, _) in enumerate(uses[: last + 1]) if begin < step or index == 0)
        there = {shard for _, shards in uses[first : last + 1] for shard in shards.tolist()}
        assert {schedule.shard_of(number)[0] for number in schedule.batch(step).numbers.tolist()} <= there


def test_a_schedule_that_was_pickled_gives_the_same_batches_and_is_small() -> None:
    shards = 20_000
    schedule = Schedule([157] * shards, [256_000_000] * shards, 5, 16)
    content = pickle.dumps(schedule)
    assert len(content) < 40 * shards  # it goes to every worker
    copy = pickle.loads(content)
    for step in (0, 1000, 197_000):
        assert copy.batch(step).numbers.tolist() == schedule.batch(step).numbers.tolist()
        assert copy.shard_of(step) == schedule.shard_of(step) == divmod(step, 157)


def test_the_list_of_shards_that_goes_to_a_worker_is_small_and_says_where_they_are() -> None:
    count = 20_000
    names = [f"train-{number:06d}" for number in range(count)]
    content = pickle.dumps(ShardList(Path("somewhere/scale_4x"), names, range(count)))
    assert len(content) < 25 * count
    shards = pickle.loads(content)
    assert len(shards) == count and shards[7] == (Path("somewhere/scale_4x/train-000007.tar"), 7)
    assert shards[-2:] == [(Path(f"somewhere/scale_4x/train-0{n}.tar"), n) for n in (19_998, 19_999)]
    with pytest.raises(IndexError):
        shards[count]


def test_a_step_costs_no_more_calls_with_many_blocks_than_with_few() -> None:
    """Counted, for clocks say nothing on a busy machine."""
    assert lines_run(shards=50) == lines_run(shards=5_000)


def lines_run(shards: int) -> int:
    """Lines of the schedule's code that a batch in the middle of an epoch takes."""
    schedule, lines = Schedule([10] * shards, [100] * shards, 0, 4, block_bytes=300), Counter[str]()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        lines[frame.f_code.co_filename] += event == "line"
        return trace

    step = shards // 2 * 10 // 4
    schedule.batch(step)
    former = sys.gettrace()
    sys.settrace(trace)
    try:
        schedule.batch(step)
    finally:
        sys.settrace(former)
    return lines[schedule_module.__file__]


@pytest.mark.parametrize(("samples", "batch"), [([0, 0], 4), ([3], 0)])
def test_nothing_to_draw_from_is_refused(samples: list[int], batch: int) -> None:
    with pytest.raises(ValueError, match=f"no schedule for {sum(samples)} samples and batches of {batch}"):
        Schedule(samples, samples, 0, batch)
