"""The training loop: `run` performs the steps, `_between_steps` logs, validates and saves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from time import monotonic

import torch

from srshards import DamagedSample, PatchBatch, PatchLoader
from srshards.errors import RunError, UsageError
from srshards.process.shortages import is_out_of_memory
from srshards.shards.mapped import Origin, repair_hint
from trainer.distributed.group import RankGroup
from trainer.runs.checkpoint import TrainingProgress
from trainer.training.learner import Learner
from trainer.training.meter import NOT_FINITE_ADVICE, Meter
from trainer.training.record import Record
from trainer.training.step_mode import StepMode
from trainer.training.stopping import StopRequest
from trainer.training.validation import Validation, ValidationResult

_SAVE_EVERY_S = 600.0  # bounds the work lost in a crash when validations are rare
_MAX_DAMAGED_SHARE = 0.001  # of the samples
_COMPILERS = ("torch._dynamo", "torch._inductor")  # modules of their exceptions; importing them takes seconds
_CAPTURE_ERRORS = ("captur", "cuda graph")  # in messages of CUDA and PyTorch


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the loop. `patches` counts those of a step on all ranks, `num_samples` the training samples.

    `save_every` None saves every ten minutes. `memory_advice` is the advice for out-of-memory errors.
    """

    total_steps: int
    val_every: int
    log_every: int
    save_every: int | None
    patches: int
    num_samples: int
    origin: Origin
    memory_advice: str
    step_mode: StepMode


class TrainingLoop:
    """Trains from `progress` on. Every rank of the group must run it, with the same collectives in the same order.

    Saves at each validation, every `save_every` steps or ten minutes, and when any rank is asked to stop.
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
        self._damaged = set(progress.damaged)  # sample numbers, of all ranks
        self._new_damage: list[DamagedSample] = []  # on this rank, in the current step
        self._last_save_s = monotonic()
        self._start_up_left = learner.start_up_steps
        self._start_up_s = 0.0

    def run(self, stop: StopRequest) -> None:
        """Train until all steps are done or a stop is requested; everything is saved in both cases.

        RunError for a loss that is not finite or too many damaged samples; UsageError when out of memory.
        """
        progress, settings = self._progress, self._settings
        if progress.step and not progress.validated:  # do what the saved step left to do
            self._between_steps(stop)
        batches = self._group.run_on_all(self._open_batches)
        self._meter.start()
        stops = self._is_stop_requested(stop)
        while progress.step < settings.total_steps and not stops:
            is_timed = not self._start_up_left
            loss = self._step(batches) if is_timed else self._start_up_step(batches)
            progress.step += 1
            progress.validated = False
            self._meter.add(loss, progress.step, is_timed)
            self._record.stepped()
            stops = self._between_steps(stop)
        if stops:
            self._save()
            stop.end()

    def _open_batches(self) -> Iterator[PatchBatch]:
        with self._explain_errors():
            return self._collect_damage(self._loader.steps(self._progress.step, self._settings.total_steps))

    def _between_steps(self, stop: StopRequest) -> bool:
        """Log, validate and save after a step where due, on all ranks alike. Return whether to stop."""
        step, settings = self._progress.step, self._settings
        late = settings.save_every is None and monotonic() - self._last_save_s > _SAVE_EVERY_S
        # One collective for everything that ranks may disagree on: a signal, the time, damaged samples.
        number, saves, damage = self._group.max(
            [stop.signal_number or 0, late, bool(self._new_damage)], within_step=True
        )
        stop.adopt(int(number))
        if damage:
            self._report_damage()
        validates = step == settings.total_steps or step % settings.val_every == 0
        if validates or step % settings.log_every == 0:
            self._log()
        if validates:
            with self._meter.paused(step):
                self._check_weights()
                try:
                    self._validate(stop)
                finally:  # so that a damaged validation image does not lose the steps since the last save
                    self._save()
        elif saves or (settings.save_every and step % settings.save_every == 0):
            with self._meter.paused(step):
                self._save()
        else:
            return number > 0
        return self._is_stop_requested(stop)

    def _is_stop_requested(self, stop: StopRequest) -> bool:
        """Return whether any rank has been asked to stop."""
        (number,) = self._group.max([stop.signal_number or 0])
        stop.adopt(int(number))
        return number > 0

    def _start_up_step(self, batches: Iterator[PatchBatch]) -> torch.Tensor:
        """Perform one of the first steps, which compile, tune or capture and are excluded from the measured time."""
        with self._meter.paused(self._progress.step):
            start_s = monotonic()
            loss = self._step(batches)
            self._start_up_s += monotonic() - start_s
            self._start_up_left -= 1
            if not self._start_up_left and self._settings.step_mode.compiles:
                self._record.say(f"Compiled in {self._start_up_s:.0f} s")
            return loss

    def _step(self, batches: Iterator[PatchBatch]) -> torch.Tensor:
        with self._explain_errors():
            return self._learner.step(self._progress.step, batches)

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Raise UsageError for errors that another setting avoids: out of memory, failed compilation or capture."""
        try:
            with self._group.explain_lost_ranks():
                yield
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise UsageError(
                    f"out of memory in step {self._progress.step + 1:,} on {self._learner.device}; "
                    f"{self._settings.memory_advice}"
                ) from error
            mode = self._settings.step_mode
            failed_to_compile = mode.compiles and type(error).__module__.startswith(_COMPILERS)
            failed_to_capture = mode.captures and any(word in str(error).lower() for word in _CAPTURE_ERRORS)
            if not (failed_to_compile or failed_to_capture):
                raise
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            action = "compiled" if failed_to_compile else "captured"
            raise UsageError(f"the step cannot be {action} ({reason}); pass --step eager") from error

    def _collect_damage(self, batches: Iterator[PatchBatch]) -> Iterator[PatchBatch]:
        """Pass the batches through and collect their damaged samples, to be reported after the step."""
        for batch in batches:
            self._new_damage += [damage for damage in batch.damaged if damage.number not in self._damaged]
            yield batch

    def _report_damage(self) -> None:
        """Report the damaged samples that any rank found in this step. RunError if there are too many in total."""
        for number, reason in chain(*self._group.all_gather(self._new_damage)):
            if number not in self._damaged:
                self._damaged.add(number)
                self._progress.damaged.append(number)
                self._record.note("damaged", self._progress.step, reason=reason)
                self._record.say(f"Damaged sample replaced by another one: {reason}")
        self._new_damage = []
        if len(self._damaged) > _MAX_DAMAGED_SHARE * self._settings.num_samples:
            raise self._group.report_once(
                RunError(
                    f"{len(self._damaged):,} of {self._settings.num_samples:,} samples are damaged, more than "
                    f"{_MAX_DAMAGED_SHARE:.1%}: {reason}; {repair_hint(self._settings.origin)}"
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
        result = self._validation.run(self._learner.evaluation_network, stop)
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
        self._meter.settle(self._progress.step)  # raises before anything is saved after a loss that is not finite
        self._check_weights()
        self._record.save(self._progress, self._learner)
        self._last_save_s = monotonic()

    def _check_weights(self) -> None:
        if self._group.any_of(not self._learner.is_finite()):
            raise self._group.report_once(
                RunError(f"the weights are not finite after step {self._progress.step:,}; {NOT_FINITE_ADVICE}")
            )
