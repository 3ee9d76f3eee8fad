"""The slot protocol, run with workers and a device that act only when told, in every order of events."""

import inspect
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from srshards.loader import slots as slots_module
from srshards.loader.slots import deliver, no_wait

GARBAGE = -1
Event = tuple[str, int]  # its name, and for "begin" and "finish" the worker
TAKE, CLOSE, RETURN, FAIL = [(name, 0) for name in ("take", "close", "return", "fail")]
Choose = Callable[["World", str, list[Event]], Event]


class FailedError(Exception):
    """A worker, a copy or the device failed."""


class World:
    """A ring whose slots hold chunk numbers, workers that take turns, and a stream of copies to the device.

    Nothing happens unless `choose` decides so: a worker begins to write (garbage, first) or finishes, or the oldest
    copy runs. Where the training process blocks, other events may come first. A device without a stream is a CPU.
    """

    def __init__(self, slots: int, chunks: int, workers: int, has_stream: bool, choose: Choose, fails: bool) -> None:
        self.num_slots, self.num_chunks, self.fails = slots, chunks, fails
        self.has_stream = has_stream
        self.choose = choose
        self.memory = [GARBAGE] * slots
        self.queues: list[deque[tuple[int, int]]] = [deque() for _ in range(workers)]  # of chunks and slots
        self.has_begun = [False] * workers
        self.outstanding: deque[tuple[int, int]] = deque()  # assigned, and not received
        self.stream: deque[int] = deque()  # slots whose copies have not run
        self.device: list[int] = []  # what the copies found, in order
        self.in_use: tuple[int, int] | None = None  # chunk and slot of the batches that the training process has
        self.sent = self.taken = 0
        self.has_ended = False
        self.delivery: Generator[int, None, None] = slots_module.deliver(range(chunks), slots, self, self.send)

    # ---- the filler and the device

    def assign(self, chunk: int, slot: int) -> None:
        assert not self.has_ended, "assigned after the end"
        assert slot not in [used for _, used in self.outstanding], "assigned twice"
        assert not self.in_use or slot != self.in_use[1], "assigned while in use"
        self.outstanding.append((chunk, slot))
        self.queues[chunk % len(self.queues)].append((chunk, slot))

    def receive(self) -> int:
        chunk, slot = self.outstanding[0]
        self.block("receive", lambda: (chunk, slot) not in self.queues[chunk % len(self.queues)])
        self.outstanding.popleft()
        return chunk

    def send(self, chunk: int, slot: int, report: int) -> tuple[int, Callable[[], object]]:
        assert report == chunk == self.taken, "not in order"
        self.sent += 1
        self.in_use = chunk, slot
        self.check()
        if not self.has_stream:
            return slot, no_wait
        self.stream.append(slot)
        return slot, lambda: self.block("wait", lambda: len(self.device) > chunk)

    def block(self, where: str, is_ready: Callable[[], bool]) -> None:
        """Block the training process until a condition holds, and possibly longer."""
        while True:
            options = self.enabled() + [RETURN] * is_ready() + [FAIL] * self.fails
            assert options, f"blocked for ever in {where}"
            event = self.choose(self, where, options)
            if event == RETURN:
                return
            if event == FAIL:
                raise FailedError
            self.run(event)

    # ---- events

    def enabled(self) -> list[Event]:
        """Return the events of workers and the device that may come next."""
        busy = [worker for worker, queue in enumerate(self.queues) if queue]
        copies: list[Event] = [("copy", 0)] * bool(self.stream)
        return copies + [("finish" if self.has_begun[worker] else "begin", worker) for worker in busy]

    def run(self, event: Event) -> None:
        """Run an event of a worker, the device or the training process."""
        name, worker = event
        if event == TAKE:
            self.take()
        elif event == CLOSE:
            self.close()
        elif name == "copy":
            self.device.append(self.memory[self.stream.popleft()])
        elif name == "begin":
            self.has_begun[worker] = True
            self.write(self.queues[worker][0][1], GARBAGE)
        else:
            self.has_begun[worker] = False
            chunk, slot = self.queues[worker].popleft()
            self.write(slot, chunk)
        self.check()

    def write(self, slot: int, content: int) -> None:
        assert slot not in self.stream, "written between send and completion"
        self.memory[slot] = content

    def take(self) -> None:
        """Request the next batches: gives the slot in use back, assigns it, and sends the next chunk."""
        self.in_use = None
        try:
            slot = next(self.delivery)
        except StopIteration:
            assert self.taken == self.num_chunks and not self.outstanding, "a chunk is missing"
            self.has_ended = True
            return
        except FailedError:
            self.close()
            return
        assert self.in_use == (self.taken, slot)
        self.taken += 1
        assert len(self.outstanding) == min(self.num_slots - 1, self.num_chunks - self.taken), "a slot is lost"
        self.check()

    def close(self) -> None:
        self.delivery.close()
        self.has_ended = True

    def check(self) -> None:
        found = list(self.device)
        if self.in_use and not self.has_stream:
            chunk, slot = self.in_use
            found = [*range(chunk), self.memory[slot]]
        assert found == list(range(len(found))), "other bytes than the schedule's"

    def check_end(self) -> None:
        """Check that all that was sent has arrived, once no event is left."""
        assert not self.stream and len(self.device) == self.sent * self.has_stream

    @property
    def state(self) -> tuple[Any, ...]:
        """Everything that the future depends on, but the position of the training process in the protocol."""
        return (
            *(
                self.taken,
                self.sent,
                self.has_ended,
                len(self.device),
                self.in_use,
                tuple(self.stream),
                tuple(self.memory),
            ),
            *(tuple(self.outstanding), tuple(map(tuple, self.queues)), tuple(self.has_begun)),
        )


# ---- all orders of events


class SeenError(BaseException):
    """This state was explored before. Not an Exception, so that nothing handles it."""


def explore(**settings: Any) -> int:
    """Run the protocol with every order of events. Return the number of different states."""
    seen: set[object] = set()
    untried: list[list[Event]] = [[]]
    while untried:
        path = untried.pop()
        replayed = iter(path[:])

        def choose(
            world: World,
            where: str,
            options: list[Event],
            path: list[Event] = path,
            replayed: Iterator[Event] = replayed,
        ) -> Event:
            if (event := next(replayed, None)) is not None:
                return event
            state = (where, world.state)
            if state in seen:
                raise SeenError
            seen.add(state)
            untried.extend([*path, other] for other in options[1:])
            path.append(options[0])
            return options[0]

        world = World(choose=choose, **settings)
        try:
            while options := world.enabled() + [TAKE, CLOSE] * (not world.has_ended):
                event = choose(world, "training", options)
                world.run(event)
        except SeenError:
            continue
        world.check_end()
    return len(seen)


def explore_all(slots: int, chunks: int, has_stream: bool) -> int:
    """Explore with each useful number of workers; with failures too."""
    settings = {"slots": slots, "chunks": chunks, "has_stream": has_stream, "fails": True}
    return sum(explore(workers=workers, **settings) for workers in range(1, max(2, slots)))


@pytest.mark.parametrize("has_stream", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 3, 4])
def test_every_order_of_events_delivers_the_schedule(slots: int, has_stream: bool) -> None:
    states = [explore_all(slots, chunks, has_stream) for chunks in range(9)]
    assert states == sorted(states) and states[-1] > 40  # the search saw more than one order


GIVE_BACK = """        yield batches
        free.append((slot, wait))
"""
GIVE_BACK_EARLY = """        free.append((slot, wait))
        for following in islice(remaining, 1):
            slot, wait = free.popleft()
            wait()
            assigned.append((following, slot))
            filler.assign(following, slot)
        yield batches
"""


@pytest.mark.parametrize(
    ("correct", "broken", "found"),
    [
        ("            wait()\n", "", "written between send and completion"),
        (GIVE_BACK, GIVE_BACK_EARLY, "assigned while in use"),
        ("free.append((slot, wait))", "free.append((slot, no_wait))", "written between send and completion"),
        ("free.append((slot, wait))", "pass", "a slot is lost|a chunk is missing"),
        ("free.append((slot, wait))", "free.extend([(slot, wait)] * 2)", "assigned twice"),
        ("chunk, slot = assigned.popleft()", "chunk, slot = assigned.pop()", "not in order"),
        ("if not assigned:", "if not free:", "a chunk is missing|blocked for ever|list index|deque"),
    ],
)
def test_the_search_finds_a_broken_protocol(
    correct: str, broken: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = inspect.getsource(deliver)
    assert source.count(correct) == 1
    names = dict(vars(slots_module))
    exec(source.replace(correct, broken), names)
    monkeypatch.setattr(slots_module, "deliver", names["deliver"])
    with pytest.raises((AssertionError, IndexError), match=found):
        for has_stream in (False, True):
            explore_all(3, 8, has_stream)


# ---- random orders of events, for larger rings


RARELY = st.sampled_from([False] * 40 + [True])


class Protocol(RuleBasedStateMachine):
    """`take` gives a slot back, assigns, receives and sends; where it blocks, other events may come first."""

    @initialize(slots=st.integers(1, 9), chunks=st.integers(0, 60), workers=st.integers(1, 5), has_stream=st.booleans())
    def begin(self, slots: int, chunks: int, workers: int, has_stream: bool) -> None:
        self.world = World(slots, chunks, workers, has_stream, self._choose, fails=False)
        self._data: Any = None

    def _choose(self, world: World, where: str, options: list[Event]) -> Event:
        event: Event = self._data.draw(st.sampled_from(options), where)
        return event

    def _run(self, name: str, data: Any) -> None:
        """Run one of the events of this name, if there is any."""
        if events := [event for event in self.world.enabled() if event[0] == name]:
            self.world.run(data.draw(st.sampled_from(events)))

    @rule(data=st.data())
    def begin_to_fill(self, data: Any) -> None:
        self._run("begin", data)

    @rule(data=st.data())
    def fill(self, data: Any) -> None:
        self._run("finish", data)

    @rule(data=st.data())
    def complete_a_copy(self, data: Any) -> None:
        self._run("copy", data)

    @precondition(lambda self: not self.world.has_ended)
    @rule(data=st.data(), fails=RARELY)
    def take(self, data: Any, fails: bool) -> None:
        self._data, self.world.fails = data, fails
        self.world.take()

    @precondition(lambda self: not self.world.has_ended)
    @rule(closes=RARELY)
    def close_early(self, closes: bool) -> None:
        if closes:
            self.world.close()

    @invariant()
    def the_schedule_is_delivered(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """Kill the workers, and let the copies run."""
        if hasattr(self, "world"):
            self.world.queues.clear()
            while events := self.world.enabled():
                self.world.run(events[0])
            self.world.check_end()


SETTINGS = settings(max_examples=60, stateful_step_count=60, suppress_health_check=[HealthCheck.too_slow])
Protocol.TestCase.settings = SETTINGS
TestProtocol = Protocol.TestCase


def test_random_orders_find_a_protocol_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    send = World.send
    monkeypatch.setattr(World, "send", lambda *args: (send(*args)[0], no_wait))
    with pytest.raises(AssertionError, match="written between send and completion"):
        run_state_machine_as_test(Protocol, settings=settings(SETTINGS, max_examples=1000, phases=[Phase.generate]))
