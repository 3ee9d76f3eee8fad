"""The state of a running fault: random numbers, scratch folder and counts."""

import random
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.drill.commands import Problem
from tests.drill.record import Tally

CASE_TIMEOUT_S = 1500  # SIGALRM then ends the process
LAST_CASE = "last-case.txt"


@dataclass
class Session:
    """`scratch` is an empty folder for this fault. All random choices use `rng`, which is seeded with `seed`."""

    times: int
    seed: int
    scratch: Path
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._case = ""

    def cases(self, describe: Callable[[int], str] = lambda number: "") -> Iterator[int]:
        """Yield the case numbers 0 .. times-1, recording each case before it runs."""
        for number in range(self.times):
            self.tally.times += 1
            self.describe(f"case {number} {describe(number)}".strip())
            signal.alarm(CASE_TIMEOUT_S)
            yield number
        signal.alarm(0)

    def describe(self, case: str) -> None:
        """Set the description of the current case, which failures and a crash of this process are reported with."""
        self._case = case
        (self.scratch / LAST_CASE).write_text(case)

    def fail(self, kind: str, message: str) -> None:
        """Record a failure; `kind` is one of `record.MUST_BE_ZERO`."""
        setattr(self.tally, kind, getattr(self.tally, kind) + 1)
        self.tally.failures.append(f"{self._case}: {kind}: {message}"[:2000])

    def finish(self, outcome: str, problems: Iterable[Problem] = ()) -> None:
        """Count the case as `recovered`, `named` or `harmless`, or as failures if there are problems."""
        problems = list(problems)
        for kind, message in problems:
            self.fail(kind, message)
        if not problems:
            setattr(self.tally, outcome, getattr(self.tally, outcome) + 1)
