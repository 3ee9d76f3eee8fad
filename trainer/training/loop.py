"""The training loop: `run` performs the steps, `_between_steps` logs, validates and saves."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic

from srshards import PatchBatch, PatchLoader
from srshards.errors import RunError
from srshards.shards.mapped import Origin
from trainer.distributed.group import RankGroup
from trainer.evaluation.best import BestBy
from trainer.runs.checkpoint import TrainingProgress
from trainer.training.account import Account
from trainer.training.agreement import Agreement
from trainer.training.cadence import MAX_SHARE, Cadence
from trainer.training.collapse import CollapseWatch
from trainer.training.damage import DamageReport
from trainer.training.device_queue import DeviceQueue
from trainer.training.learner import Learner
from trainer.training.meter import NOT_FINITE_ADVICE, Meter
from trainer.training.record import Record
from trainer.training.step_errors import explain_step_errors
from trainer.training.step_mode import StepMode
from trainer.training.stopping import StopRequest
from trainer.training.validation import Validation, ValidationResult

_SAVE_EVERY_S = 600.0  # bounds the work lost in a crash when validations are rare


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the loop. `patches` counts those of a step on all ranks, `num_samples` the training samples.

    `val_every` may grow if `adapts_val_every`. `save_every` None saves every ten minutes. `memory_advice` is the advice
    for out-of-memory errors. `best_by` is what the best weights are chosen by; None without a validation.
    """

    total_steps: int
    val_every: int
    adapts_val_every: bool
    log_every: int
    save_every: int | None
    patches: int
    num_samples: int
    origin: Origin
    memory_advice: str
    step_mode: StepMode
    best_by: BestBy | None


class TrainingLoop:
    """Trains from `progress` on. Every rank of the group must run it, with the same collectives in the same order.

    Saves at each validation, every `save_every` steps or ten minutes, and when any rank is asked to stop. With several
    ranks, a request to stop, the ten minutes and damaged samples take effect one step late.
    """

    def __init__(
        self,
        settings: LoopSettings,
        learner: Learner,
        loader: PatchLoader,
        validation: Validation | None,
        progress: TrainingProgress,
        record: Record,
        account: Account,
        queue: DeviceQueue,
        group: RankGroup,
    ) -> None:
        self.last_validation: ValidationResult | None = None
        self._settings = settings
        self._learner = learner
        self._loader = loader
        self._validation = validation
        self._progress = progress
        self._record = record
        self._account = account
        self._queue = queue
        self._group = group
        self._meter = Meter(account, settings.patches, learner.columns, progress.losses, group)
        self._cadence = Cadence(
            progress.val_every if settings.adapts_val_every and progress.val_every else settings.val_every,
            settings.adapts_val_every,
            settings.total_steps,
            account,
        )
        adversary = learner.adversary
        self._collapse = CollapseWatch(adversary.guessing, progress.collapse) if adversary else None
        self._damage = DamageReport(settings.num_samples, settings.origin, progress, record, group)
        self._last_save_s = monotonic()
        self._start_up_left = learner.start_up_steps
        self._timed_steps = 0
        self._opened_s = 0.0  # of start-up, when the first batch had arrived

    def run(self, stop: StopRequest) -> None:
        """Train until all steps are done or a stop is requested; everything is saved in both cases.

        RunError for a loss that is not finite or too many damaged samples; UsageError when out of memory.
        """
        progress, total = self._progress, self._settings.total_steps
        # One collective for everything that ranks may disagree on: a signal, the time, damaged samples.
        agreement = Agreement(self._group, lambda: [stop.signal_number or 0, self._is_save_late(), self._damage.is_due])
        if progress.step and not progress.validated:  # do what the saved step left to do
            self._between_steps(stop, agreement.read())
        batches = self._group.run_on_all(self._open_batches)
        stops = self._is_stop_requested(stop)
        self._opened_s = self._account.seconds()["start_up_s"]
        if not self._start_up_left:
            self._end_start_up()
        while progress.step < total and not stops:
            self._step(batches)
            stops = self._between_steps(stop, agreement.read())
            if progress.step < total and not stops:
                agreement.exchange()
        if stops:
            self._save()
        with self._account.phase("saving"):
            self._record.flush()
        self._note_account()
        if stops:
            stop.end()

    def _open_batches(self) -> Iterator[PatchBatch]:
        with self._explain_errors(), self._group.explain_lost_ranks():
            return self._taken(self._loader.steps(self._progress.step, self._settings.total_steps))

    def _taken(self, batches: Iterator[PatchBatch]) -> Iterator[PatchBatch]:
        """Pass the batches through. Book the time spent waiting for them, and collect their damaged samples."""
        while True:
            with self._account.phase("data_wait"):
                batch = next(batches, None)
            if batch is None:
                return
            self._damage.collect(batch)
            yield batch

    def _step(self, batches: Iterator[PatchBatch]) -> None:
        progress, is_timed = self._progress, not self._account.is_starting_up
        with self._account.phase("steps"), self._explain_errors(), self._group.explain_lost_ranks():
            losses = self._learner.step(progress.step, batches)
            self._queue.mark()
        progress.step += 1
        progress.validated = False
        self._timed_steps += is_timed
        self._meter.add(losses, self._learner.active_columns(progress.step - 1), progress.step, is_timed)
        self._record.stepped()
        self._record.check()
        if not is_timed:
            self._start_up_left -= 1
            if not self._start_up_left:
                self._end_start_up()

    def _end_start_up(self) -> None:
        """Start to measure: everything is compiled, tuned and captured, and the GPU has finished it."""
        self._meter.settle(self._progress.step)
        if self._settings.step_mode.compiles:
            self._record.say(f"Compiled in {self._account.seconds()['start_up_s'] - self._opened_s:.0f} s")
        self._account.end_start_up()
        self._meter.start()

    def _explain_errors(self) -> AbstractContextManager[None]:
        settings = self._settings
        return explain_step_errors(
            self._progress.step + 1, self._learner.device, settings.step_mode, settings.memory_advice
        )

    def _is_save_late(self) -> bool:
        return self._settings.save_every is None and monotonic() - self._last_save_s > _SAVE_EVERY_S

    def _between_steps(self, stop: StopRequest, agreed: Sequence[float]) -> bool:
        """Log, validate and save after a step where due, on all ranks alike. Return whether to stop."""
        step, settings = self._progress.step, self._settings
        number, saves, damage = agreed
        stop.adopt(int(number))
        if damage:
            self._damage.report()
        validates = self._cadence.is_due(step)
        if validates or step % settings.log_every == 0:
            self._log()
        if validates:
            self._check_weights()
            try:
                self._validate(stop)
                self._adapt_cadence()
            finally:  # so that a damaged validation image does not lose the steps since the last save
                self._save()
        elif saves or (settings.save_every and step % settings.save_every == 0):
            with self._cadence.independent_save():
                self._save()
        else:
            return number > 0
        if step < settings.total_steps:
            self._note_account()
        return self._is_stop_requested(stop)

    def _is_stop_requested(self, stop: StopRequest) -> bool:
        """Return whether any rank has been asked to stop."""
        (number,) = self._group.max([stop.signal_number or 0])
        stop.adopt(int(number))
        return number > 0

    def _log(self) -> None:
        step = self._progress.step
        pace = self._meter.lap(step, self._learner.rate(max(0, step - 1)))
        if pace is None:
            return
        self._progress.trained_s += pace.seconds
        self._record.pace(step, pace)
        if self._collapse and pace.scores:
            warning = self._collapse.warning(pace.losses["discriminator"], **pace.scores)
            if warning:
                self._record.note("collapse", step, message=warning)
                self._record.say(f"Warning: {warning}")

    def _validate(self, stop: StopRequest) -> None:
        step, progress, best_by = self._progress.step, self._progress, self._settings.best_by
        if self._validation is None or best_by is None:
            progress.validated = True
            return
        with self._account.phase("validation"):
            result = self._validation.run(self._learner.evaluation_network, stop)
            if result is None:
                return
            value = result.value(best_by)
            if best_by.is_better(value, progress.best):
                self._record.keep_best()
                progress.best, progress.best_step = value, step
            self.last_validation = result
            self._record.validated(step, result, "" if progress.best is None else best_by.shortened(progress.best))
        progress.validated = True

    def _adapt_cadence(self) -> None:
        """Validate less often from now on, on all ranks alike, if that takes too much of the time."""
        step, cadence = self._progress.step, self._cadence
        if step == self._settings.total_steps or not self._progress.validated:
            return
        (suggested,) = self._group.max([cadence.suggested(self._timed_steps)])
        if suggested == cadence.every:
            return
        cadence.every = self._progress.val_every = int(suggested)
        self._record.note("cadence", step, val_every=cadence.every, validation_s=cadence.validation_s)
        self._record.say(
            f"Validations take {cadence.validation_s:.1f} s: from now on every {cadence.every:,} steps, to take at "
            f"most {MAX_SHARE:.0%} of a long run; --val-every sets a fixed interval"
        )

    def _save(self) -> None:
        self._meter.settle(self._progress.step)  # raises before anything is saved after a loss that is not finite
        self._check_weights()
        self._damage.report()  # so that the state has all damage up to its step, which the ranks exchange a step late
        with self._account.phase("saving"):
            self._progress.account = self._account.seconds()
            self._record.save(self._progress, self._learner)
        self._last_save_s = monotonic()

    def _note_account(self) -> None:
        seconds = self._account.seconds()
        self._record.note("account", self._progress.step, **seconds, steps_share=self._account.steps_share)

    def _check_weights(self) -> None:
        with self._account.phase("saving"):
            is_damaged = self._group.any_of(not self._learner.is_finite())
        if is_damaged:
            raise self._group.report_once(
                RunError(f"the weights are not finite after step {self._progress.step:,}; {NOT_FINITE_ADVICE}")
            )
