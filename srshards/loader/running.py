"""The batches that are under way: begun when the first is asked for, ended with the processes that make them."""

from collections.abc import Callable, Iterator

from srshards.loader.patch_batch import PatchBatch, Source


class RunningBatches:
    """At most one source at a time, which `make` gives for the steps first .. stop-1."""

    def __init__(self, make: Callable[[int, int], Source]) -> None:
        self._make = make
        self._source: Source | None = None
        self._batches: Iterator[PatchBatch] | None = None
        self._stop = 0  # the step before which the source ends
        self._former_wait_s = 0.0  # of sources that have ended

    @property
    def wait_s(self) -> float:
        """Seconds that were spent waiting for all batches but the first of each source."""
        return self._former_wait_s + (self._source.wait_s if self._source else 0.0)

    def begin(self, first: int, stop: int, skipped: int = 0) -> None:
        """Have the batches of the steps first .. stop-1 but for the `skipped` first. Returns when one is there.

        A source that is at work up to the same step stays: it is where it was left.
        """
        if self._batches is not None and self._stop == stop:
            return
        self.end()
        self._source, self._stop = self._make(first, stop), stop
        try:
            self._batches = self._source.started()
            for _ in range(skipped):
                next(self._batches)
        except BaseException:
            self.end()
            raise

    def take(self) -> PatchBatch:
        """The next batch. Whatever goes wrong ends the source."""
        assert self._batches is not None
        try:
            return next(self._batches)
        except BaseException:
            self.end()
            raise

    def end_at(self, step: int) -> None:
        """End the source if it has nothing from this step on."""
        if step == self._stop:
            self.end()

    def end(self) -> None:
        """End the processes that make batches, and let go of all memory but that of the batch taken last."""
        self._former_wait_s = self.wait_s
        self._source = self._batches = None
