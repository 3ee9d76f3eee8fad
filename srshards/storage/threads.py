"""Calls in daemon threads, which never keep the process from ending."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

_S = TypeVar("_S")
_T = TypeVar("_T")


def map_in_threads(action: Callable[[_S], _T], items: Iterable[_S], at_once: int) -> Iterator[Future[_T]]:
    """Yield a future of `action(item)` for each item, in order, with up to `at_once` of them running.

    A caller that stops early, on Ctrl-C or an error, does not wait for the rest: a store may take minutes to answer.
    """
    remaining, futures = iter(items), deque[Future[_T]]()
    while True:
        while len(futures) < at_once:
            try:
                futures.append(start_in_thread(action, next(remaining)))
            except StopIteration:
                break
        if not futures:
            return
        yield futures.popleft()


def start_in_thread(action: Callable[[_S], _T], item: _S) -> Future[_T]:
    """Call `action(item)` in a new thread, and return a future of its result."""
    future = Future[_T]()

    def work() -> None:
        try:
            future.set_result(action(item))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, name="srshards-call", daemon=True).start()
    return future
