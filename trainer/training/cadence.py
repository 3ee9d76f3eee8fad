"""The interval between validations, which grows until validating and saving take little of the time."""

from trainer.training.account import Account, training_s

MAX_SHARE = 0.02  # of the wall-clock time, for validations and saves together


class Cadence:
    """Decides after which steps to validate: the multiples of `every`, and the last one.

    The interval doubles, if it `adapts`, while validations and saves at their mean duration since the start of the
    process would take more than MAX_SHARE of the time. It does not shrink.
    """

    def __init__(self, every: int, adapts: bool, total_steps: int, account: Account) -> None:
        self.every = every
        self._adapts = adapts
        self._total_steps = total_steps
        self._account = account
        self._start = account.seconds()
        self._validations = 0
        self.validation_s = 0.0  # mean duration of a validation with its saves

    def is_due(self, step: int) -> bool:
        return step % self.every == 0 or step == self._total_steps

    def suggested(self, timed_steps: int) -> int:
        """Return the interval to use after another validation. `timed_steps`: since the start of the process."""
        self._validations += 1
        now = self._account.seconds()
        cost_s = sum(now[name] - self._start[name] for name in ("validation_s", "saving_s"))
        self.validation_s = cost_s / self._validations
        if not (self._adapts and timed_steps):
            return self.every
        step_s = (training_s(now) - training_s(self._start)) / timed_steps
        return widened(self.every, self.validation_s, step_s, self._total_steps)


def widened(every: int, validation_s: float, step_s: float, total_steps: int) -> int:
    """Return the interval, doubled until a validation of `validation_s` takes at most MAX_SHARE of the time."""
    while every < total_steps and validation_s > MAX_SHARE * (validation_s + every * step_s):
        every *= 2
    return every
