"""Results of one fault: cases, outcomes and failures."""

from dataclasses import asdict, dataclass, field
from typing import Any

MUST_BE_ZERO = ("samples_lost", "half_written", "silent", "crashed")


@dataclass
class Tally:
    """Counts of one fault.

    Each case ends as `recovered` (the same bytes as an undisturbed run), `named` (an error message, exit code 1 or 2),
    `harmless` (nothing was wrong) or as a failure, which `failures` describes.

    `half_written`: incomplete files under their final name, or temporary files left behind. `silent`: bytes or pixels
    that differ from those of an undisturbed run without any message. `crashed`: tracebacks, deaths by a signal, hangs.
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
        """Whether there was at least one case, and no failure."""
        num_passed = self.recovered + self.named + self.harmless
        return 0 < self.times <= num_passed and not self.failures and not any(getattr(self, n) for n in MUST_BE_ZERO)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
