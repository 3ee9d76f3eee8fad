"""The interval between validations, which grows until validating and saving take little of the time."""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median_low

from trainer.training.account import Account, training_s

MAX_SHARE = 0.02  # of the wall-clock time, for validations and their saves together, in a long run
_MAX_GROWTH = 4  # of the interval per validation, so that further ones are measured before it is long


class Cadence:
    """Decides after which steps to validate: the multiples of `every`, and the last one.

    The interval doubles, if it `adapts`, while validations and their saves, at the median duration since the start of
    the process, would take more than MAX_SHARE of the time; after one validation, to at most _MAX_GROWTH times its
    length. It does not shrink, so a single long one, e.g. during an outage of the store or while the process was
    stopped, must not decide. The first one of a process, which also allocates memory and, on a GPU, loads and tunes
    kernels, does not count.
    """

    def __init__(self, every: int, adapts: bool, total_steps: int, account: Account) -> None:
        self.every = every
        self._adapts = adapts
        self._total_steps = total_steps
        self._account = account
        self._start = account.seconds()
        self._cost_s = self._saving_and_validation_s()  # up to the last validation
        self._costs: list[float] = []  # seconds of each validation with the save of the previous one
        self.validation_s = 0.0  # median duration of a validation with its save, without the first one

    def is_due(self, step: int) -> bool:
        return step % self.every == 0 or step == self._total_steps

    def suggested(self, timed_steps: int) -> int:
        """Return the interval to use after another validation. `timed_steps`: since the start of the process."""
        cost_s = self._saving_and_validation_s()
        self._costs.append(cost_s - self._cost_s)
        self._cost_s = cost_s
        counted = self._costs[1:]
        if not (self._adapts and timed_steps and counted):
            return self.every
        self.validation_s = median_low(counted)  # of two, the shorter one
        step_s = (training_s(self._account.seconds()) - training_s(self._start)) / timed_steps
        return widened(self.every, self.validation_s, step_s, self._total_steps)

    @contextmanager
    def independent_save(self) -> Iterator[None]:
        """Do not count the save in the block: validating less often would not make it any rarer."""
        before_s = self._saving_and_validation_s()
        try:
            yield
        finally:
            self._cost_s += self._saving_and_validation_s() - before_s

    def _saving_and_validation_s(self) -> float:
        seconds = self._account.seconds()
        return seconds["validation_s"] + seconds["saving_s"]


def widened(every: int, validation_s: float, step_s: float, total_steps: int) -> int:
    """Return the interval, doubled until validations of `validation_s` take at most MAX_SHARE, or up to the limit."""
    limit = min(total_steps, _MAX_GROWTH * every)
    while every < limit and validation_s > MAX_SHARE * (validation_s + every * step_s):
        every *= 2
    return every
