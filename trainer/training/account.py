"""The account of a run: how its wall-clock time divides among steps, data, validation, saving and start-up."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Literal, TypeAlias

Phase: TypeAlias = Literal["steps", "data_wait", "validation", "saving", "start_up", "rest"]
PHASES: tuple[Phase, ...] = ("steps", "data_wait", "validation", "saving", "start_up", "rest")

# The keys of `Account.seconds`, of the journal and of state.pt.
PHASE_NAMES = {
    "steps_s": "steps",
    "data_wait_s": "data wait",
    "validation_s": "validation",
    "saving_s": "saving",
    "start_up_s": "start-up",
    "rest_s": "rest",
}
_ABSORBED_BY_START_UP = ("steps", "data_wait", "rest")


def _never_busy() -> bool:
    return False


class Account:
    """Books the time since `start_s`, the clock's reading at the start of the command, in addition to `earlier`.

    `earlier` are the seconds of this run before it was resumed, as `seconds` returned them. Until `end_start_up`, time
    is booked to `start_up`, including steps and their data; after it, time outside of any phase is `rest`.

    A GPU computes while the host goes on. `is_busy` tells whether it still does: waiting for data and the rest are then
    hidden behind the steps, and booked to them.
    """

    def __init__(
        self,
        earlier: Mapping[str, float] | None = None,
        start_s: float | None = None,
        is_busy: Callable[[], bool] = _never_busy,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._clock = clock
        self._is_busy = is_busy
        self._seconds: dict[Phase, float] = {phase: (earlier or {}).get(f"{phase}_s", 0.0) for phase in PHASES}
        self.earlier_s = sum(self._seconds.values())
        self._phase: Phase = "start_up"
        self._since_s = clock() if start_s is None else start_s
        self._until_last_step_s = self._without_start_up_s()

    @property
    def is_starting_up(self) -> bool:
        return self._phase == "start_up"

    def end_start_up(self) -> None:
        self._switch_to("rest")

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Book the block to this phase, except for the phases entered within it."""
        outer = self._phase
        self._switch_to(outer if outer == "start_up" and name in _ABSORBED_BY_START_UP else name)
        try:
            yield
        finally:
            self._switch_to(outer)

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase up to now, `steps_s` etc. Their sum is the wall-clock time of the run."""
        self._switch_to(self._phase)
        return {f"{phase}_s": seconds for phase, seconds in self._seconds.items()}

    @property
    def steps_share(self) -> float:
        """Share of the steps in the time from the first step to the last, without the start-up. NaN without steps."""
        return self._seconds["steps"] / self._until_last_step_s if self._seconds["steps"] else math.nan

    def _switch_to(self, name: Phase) -> None:
        now_s, phase = self._clock(), self._phase
        if phase in ("data_wait", "rest") and self._is_busy():
            phase = "steps"
        self._seconds[phase] += now_s - self._since_s
        if phase == "steps":
            self._until_last_step_s = self._without_start_up_s()
        self._phase, self._since_s = name, now_s

    def _without_start_up_s(self) -> float:
        return sum(self._seconds.values()) - self._seconds["start_up"]


def training_s(seconds: Mapping[str, float]) -> float:
    """Return the time of training proper: without start-up, validation and saving."""
    return seconds["steps_s"] + seconds["data_wait_s"] + seconds["rest_s"]
