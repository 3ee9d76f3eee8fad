"""Damaged samples found by any rank: reported once each, and an error if they are too many."""

from collections.abc import Iterator
from itertools import chain

from srshards import DamagedSample, PatchBatch
from srshards.errors import RunError
from srshards.shards.mapped import Origin, repair_hint
from trainer.distributed.group import RankGroup
from trainer.runs.checkpoint import TrainingProgress
from trainer.training.record import Record

_MAX_DAMAGED_SHARE = 0.001  # of the samples


class DamageReport:
    """Collects the damaged samples in the batches of this rank, and adds those of all ranks to `progress.damaged`."""

    def __init__(
        self, num_samples: int, origin: Origin, progress: TrainingProgress, record: Record, group: RankGroup
    ) -> None:
        self._num_samples = num_samples
        self._origin = origin
        self._progress = progress
        self._record = record
        self._group = group
        self._known = set(progress.damaged)  # sample numbers, of all ranks
        self._new: list[DamagedSample] = []  # on this rank, since the last report

    @property
    def is_due(self) -> bool:
        """Whether this rank has found damage since the last report."""
        return bool(self._new)

    def collect(self, batch: PatchBatch) -> None:
        self._new += [damage for damage in batch.damaged if damage.number not in self._known]

    def report(self) -> None:
        """Report what any rank has collected, on all ranks. RunError if too many samples are damaged in total."""
        last_reason = None
        for number, reason in self._gathered():
            if number not in self._known:
                self._known.add(number)
                self._progress.damaged.append(number)
                self._record.note("damaged", self._progress.step, reason=reason)
                self._record.say(f"Damaged sample replaced by another one: {reason}")
                last_reason = reason
        if last_reason is not None and len(self._known) > _MAX_DAMAGED_SHARE * self._num_samples:
            raise self._group.report_once(
                RunError(
                    f"{len(self._known):,} of {self._num_samples:,} samples are damaged, more than "
                    f"{_MAX_DAMAGED_SHARE:.1%}: {last_reason}; {repair_hint(self._origin)}"
                )
            )

    def _gathered(self) -> Iterator[DamagedSample]:
        new, self._new = self._new, []
        return chain(*self._group.all_gather(new))
