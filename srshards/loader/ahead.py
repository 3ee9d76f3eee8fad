"""Compute results in advance, in a thread."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def computed_ahead(
    compute: Callable[[Item], Result], items: Iterable[Item], num_ahead: int
) -> Generator[Result, None, None]:
    """Yield `compute(item)` for each item, in order. A thread computes up to `num_ahead` results in advance.

    An exception of `compute` is raised instead of its result. Closing the generator ends the thread.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(1) as thread:
        pending = deque(thread.submit(compute, item) for item in islice(remaining, num_ahead))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(thread.submit(compute, item) for item in islice(remaining, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()
