"""The training loop: `run` takes the steps, `_between_steps` logs, validates and saves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from time import monotonic

import torch

from srshards import DamagedSample, PatchBatch, PatchLoader
from srshards.errors import RunError, UsageError
from srshards.process.resources import is_out_of_memory
from srshards.shards.mapped import Origin, repair_hint
from trainer.distributed.group import RankGroup
from trainer.inference.image_function import as_function
from trainer.runs.checkpoint import TrainingProgress
from trainer.training.learner import Learner
from trainer.training.meter import NOT_FINITE, Meter
from trainer.training.record import Record
from trainer.training.stopping import StopRequest
from trainer.training.validation import Validation, ValidationResult

_SAVE_EVERY_S = 600.0  # a long way between validations must not be lost when the machine dies
_MAX_DAMAGED_SHARE = 0.001  # of the samples
_COMPILERS = ("torch._dynamo", "torch._inductor")  # where their errors are defined; importing those takes seconds


@dataclass(frozen=True)
class LoopSettings:
    """`patches` are those of a step, of all ranks; `num_samples` the shards' training samples.

    `save_every` None saves by the clock. `less_memory` is the advice to give when memory does not suffice.
    """

    total_steps: int
    val_every: int
    log_every: int
    save_every: int | None
    patches: int
    num_samples: int
    origin: Origin
    less_memory: str
    compiled: bool


class TrainingLoop:
    """Trains from `progress` on, as one rank of the group; all ranks take the same path.

    Saves at each validation, every so many steps or ten minutes, and when any rank is asked to stop.
    """

    def __init__(
        self,
        settings: LoopSettings,
        learner: Learner,
        loader: PatchLoader,
        validation: Validation | None,
        progress: TrainingProgress,
        record: Record,
        group: RankGroup,
    ) -> None:
        self._meter = Meter(loader, settings.patches, progress.losses, group)
        self.last_validation: ValidationResult | None = None
        self._settings = settings
        self._learner = learner
        self._loader = loader
        self._validation = validation
        self._progress = progress
        self._record = record
        self._group = group
        self._damaged = set(progress.damaged)  # by number, of all ranks
        self._found: list[DamagedSample] = []  # by this rank in the step under way
        self._saved_s = monotonic()
        self._warm = False

    def run(self, stop: StopRequest) -> None:
        """Train until all steps are done or a stop is asked for; in both cases everything is saved.

        RunError for a loss that is not finite or too many damaged samples; UsageError when memory does not suffice.
        """
        progress, settings = self._progress, self._settings
        if progress.step and not progress.validated:  # it was stopped between the step and its validation
            self._between_steps(stop)
        batches = self._group.run_on_all(self._begun)
        self._meter.start()
        stops = self._agreed(stop)
        while progress.step < settings.total_steps and not stops:
            loss = self._step(batches) if self._warm else self._first_step(batches)
            progress.step += 1
            progress.validated = False
            self._meter.add(loss, progress.step)
            self._record.stepped()
            stops = self._between_steps(stop)
        if stops:
            self._save()
            stop.end()

    def _begun(self) -> Iterator[PatchBatch]:
        with self._advised():
            return self._sound(self._loader.steps(self._progress.step, self._settings.total_steps))

    def _between_steps(self, stop: StopRequest) -> bool:
        """What there is to do after a step, on all ranks or on none. Whether to stop."""
        step, settings = self._progress.step, self._settings
        late = settings.save_every is None and monotonic() - self._saved_s > _SAVE_EVERY_S
        # One collective for everything that only some ranks know: a signal, the time, damage.
        number, saves, damage = self._group.max([stop.signal_number or 0, late, bool(self._found)])
        stop.honour(int(number))
        if damage:
            self._name_damage()
        looks = step == settings.total_steps or step % settings.val_every == 0
        if looks or step % settings.log_every == 0:
            self._log()
        if looks:
            with self._meter.paused(step):
                self._check_weights()
                try:
                    self._validate(stop)
                finally:  # a validation image that is damaged must not cost the steps since the last save
                    self._save()
        elif saves or (settings.save_every and step % settings.save_every == 0):
            with self._meter.paused(step):
                self._save()
        else:
            return number > 0
        return self._agreed(stop)

    def _agreed(self, stop: StopRequest) -> bool:
        """Whether a stop was asked for, on any rank."""
        (number,) = self._group.max([stop.signal_number or 0])
        stop.honour(int(number))
        return number > 0

    def _first_step(self, batches: Iterator[PatchBatch]) -> torch.Tensor:
        """The one in which a network is compiled, which does not count as training."""
        self._warm = True
        if not self._settings.compiled:
            return self._step(batches)
        with self._meter.paused(self._progress.step):
            start_s = monotonic()
            loss = self._step(batches)
            self._record.say(f"Compiled in {monotonic() - start_s:.0f} s")
            return loss

    def _step(self, batches: Iterator[PatchBatch]) -> torch.Tensor:
        with self._advised():
            return self._learner.step(self._progress.step, batches)

    @contextmanager
    def _advised(self) -> Iterator[None]:
        """What goes wrong in computing a step becomes a UsageError where another setting helps."""
        try:
            with self._group.explain_lost_ranks():
                yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                if self._settings.compiled and type(error).__module__.startswith(_COMPILERS):
                    reason = str(error).strip().splitlines()[0]
                    raise UsageError(f"--compile does not work here ({reason}); leave it out") from error
                raise
            raise UsageError(
                f"out of memory in step {self._progress.step + 1} on {self._learner.device}; "
                f"{self._settings.less_memory}"
            ) from error

    def _sound(self, batches: Iterator[PatchBatch]) -> Iterator[PatchBatch]:
        """The batches as they come; what is damaged in them is kept for after the step."""
        for batch in batches:
            self._found += [damage for damage in batch.damaged if damage.number not in self._damaged]
            yield batch

    def _name_damage(self) -> None:
        """Name the damaged samples that any rank found in this step. RunError when they are too many by now."""
        for number, reason in chain(*self._group.all_gather(self._found)):
            if number not in self._damaged:
                self._damaged.add(number)
                self._progress.damaged.append(number)
                self._record.note("damaged", self._progress.step, reason=reason)
                self._record.say(f"Damaged, another sample takes its place: {reason}")
        self._found = []
        if len(self._damaged) > _MAX_DAMAGED_SHARE * self._settings.num_samples:
            raise self._group.report_once(
                RunError(
                    f"{len(self._damaged)} of {self._settings.num_samples:,} samples are damaged, more than "
                    f"{_MAX_DAMAGED_SHARE:.1%}: {reason}. {repair_hint(self._settings.origin)}"
                )
            )

    def _log(self) -> None:
        step = self._progress.step
        pace = self._meter.lap(step, self._learner.rate(max(0, step - 1)))
        if pace is not None:
            self._progress.trained_s += pace.seconds
            self._record.pace(step, pace)

    def _validate(self, stop: StopRequest) -> None:
        step, progress = self._progress.step, self._progress
        if self._validation is None:
            progress.validated = True
            return
        result = self._validation.run(as_function(self._learner.evaluation_network, self._learner.device), stop)
        if result is None:
            return
        best = progress.best_psnr_y
        if best is None or result.network.psnr_y > best:
            self._record.keep_best(self._learner)
            best, progress.best_step = result.network.psnr_y, step
            progress.best_psnr_y = best
        self.last_validation = result
        self._record.validated(step, result, best)
        progress.validated = True

    def _save(self) -> None:
        self._meter.settle(self._progress.step)  # nothing is saved behind a loss that is not finite
        self._check_weights()
        self._record.save(self._progress, self._learner)
        self._saved_s = monotonic()

    def _check_weights(self) -> None:
        if self._group.any_of(not self._learner.is_finite()):
            raise self._group.report_once(
                RunError(f"the weights are not finite after step {self._progress.step:,}; {NOT_FINITE}")
            )
