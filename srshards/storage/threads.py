"""Work that is begun before its result is needed, in threads that never keep the process from ending."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

_S = TypeVar("_S")
_T = TypeVar("_T")


def map_in_threads(action: Callable[[_S], _T], items: Iterable[_S], at_once: int) -> Iterator[Future[_T]]:
    """What `action` gives for each item, in order, with up to `at_once` of them under way at any time.

    Whoever stops early, on Ctrl-C or an error, waits for none of the others: a store may take minutes to answer.
    """
    waiting, coming = iter(items), deque[Future[_T]]()
    while True:
        while len(coming) < at_once:
            try:
                coming.append(_begin(action, next(waiting)))
            except StopIteration:
                break
        if not coming:
            return
        yield coming.popleft()


def _begin(action: Callable[[_S], _T], item: _S) -> Future[_T]:
    future = Future[_T]()

    def work() -> None:
        try:
            future.set_result(action(item))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, name="ahead", daemon=True).start()
    return future
