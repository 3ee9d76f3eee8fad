"""What came of a fault: how often it was done, how it ended, and what should never be."""

from dataclasses import asdict, dataclass, field
from typing import Any

MUST_BE_ZERO = ("samples_lost", "half_written", "silent", "crashed")


@dataclass
class Tally:
    """Counts of one fault. Each time ends as `recovered` (the same bytes came out afterwards), `named` (a message, exit
    code 1 or 2), `harmless` (nothing was wrong) or as a failure, which is told in words in `failures`.

    `half_written`: files under their final name that are not whole, or temporary ones that stayed. `silent`: other
    bytes or pixels than an undisturbed run's, and nobody said so. `crashed`: tracebacks, deaths by a signal, hangs.
    """

    times: int = 0
    recovered: int = 0
    named: int = 0
    harmless: int = 0
    samples_lost: int = 0
    half_written: int = 0
    silent: int = 0
    crashed: int = 0
    failures: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether the fault was done at all, and all is zero that must be."""
        ended = self.recovered + self.named + self.harmless
        return 0 < self.times <= ended and not self.failures and not any(getattr(self, n) for n in MUST_BE_ZERO)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
