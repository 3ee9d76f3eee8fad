"""A running fault of the drill: its random numbers, scratch folder and counts."""

import random
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.drill.record import Tally

PATIENCE_S = 1500  # a case that takes longer hangs; SIGALRM then ends the process
LAST_CASE = "last-case.txt"


@dataclass
class Session:
    """`scratch` is an empty folder for this fault. All random choices come from `rng`, and so from the seed."""

    times: int
    seed: int
    scratch: Path
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._now = ""

    def cases(self, describe: Callable[[int], str] = lambda number: "") -> Iterator[int]:
        """Yield the case numbers 0 .. times-1, recording each case before it runs."""
        for number in range(self.times):
            self.begin(f"case {number} {describe(number)}".strip())
            yield number
        signal.alarm(0)

    def begin(self, case: str) -> None:
        """Start a case."""
        self.tally.times += 1
        self._now = case
        (self.scratch / LAST_CASE).write_text(case)
        signal.alarm(PATIENCE_S)

    def begin_as(self, what: str) -> None:
        """Replace the description of the current case."""
        self._now = f"{self._now.split(':')[0]}: {what}"
        (self.scratch / LAST_CASE).write_text(self._now)

    def fail(self, kind: str, message: str, count: int = 1) -> None:
        """Record a failure; `kind` is one of `record.MUST_BE_ZERO`."""
        setattr(self.tally, kind, getattr(self.tally, kind) + count)
        self.tally.failures.append(f"{self._now}: {kind}: {message}"[:2000])

    def ended(self, outcome: str, problems: Iterable[tuple[str, str]] = ()) -> None:
        """End the case as `recovered`, `named` or `harmless`, or as failures if there are problems (kind, message)."""
        problems = list(problems)
        for kind, message in problems:
            self.fail(kind, message)
        if not problems:
            setattr(self.tally, outcome, getattr(self.tally, outcome) + 1)
