"""Lifetime of a source of batches: started on demand, and stopped together with its processes."""

from collections.abc import Callable, Iterator

from srshards.loader.patch_batch import PatchBatch, Source


class RunningBatches:
    """Owner of at most one running source. `make` creates a source for steps first .. stop-1."""

    def __init__(self, make: Callable[[int, int], Source]) -> None:
        self._make = make
        self._source: Source | None = None
        self._batches: Iterator[PatchBatch] | None = None
        self._stop = 0  # the source ends before this step
        self._previous_wait_s = 0.0  # waiting time of sources that have ended

    @property
    def wait_s(self) -> float:
        """Seconds spent waiting for batches, excluding the first of each source."""
        return self._previous_wait_s + (self._source.wait_s if self._source else 0.0)

    def begin(self, first: int, stop: int, skipped: int = 0) -> None:
        """Start the batches of steps first .. stop-1, without the first `skipped`. Blocks until the source has started.

        A running source with the same `stop` is kept: it is at the right position already.
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
        """Return the next batch. Any exception ends the source."""
        assert self._batches is not None
        try:
            return next(self._batches)
        except BaseException:
            self.end()
            raise

    def end_at(self, step: int) -> None:
        """End the source if this is its last step."""
        if step == self._stop:
            self.end()

    def end(self) -> None:
        """Stop the worker processes and release all memory except that of the last batch taken."""
        self._previous_wait_s = self.wait_s
        self._source = self._batches = None
