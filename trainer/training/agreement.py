"""What all ranks act on after a step, exchanged while the next step is computed."""

from collections.abc import Callable, Sequence

from trainer.distributed.group import RankGroup


class Agreement:
    """The maximum over all ranks of the values that `sample` returns between two steps.

    With several ranks, these are the values after the previous step, so that no rank waits for the others. `read` and
    `exchange` are collective. Between them no exchange is in progress, and other collectives may run.
    """

    def __init__(self, group: RankGroup, sample: Callable[[], Sequence[float]]) -> None:
        self._group = group
        self._sample = sample
        self._result: Callable[[], list[float]] | None = None

    def read(self) -> list[float]:
        """Return the values of the last exchange if one was started, else those of now."""
        result, self._result = self._result, None
        return result() if result else self._group.max(self._sample())

    def exchange(self) -> None:
        """Start to exchange the values for the next `read`."""
        if self._group.world_size > 1:
            self._result = self._group.start_max(self._sample())
