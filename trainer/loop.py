"""The training loop: steps, and what happens between them. `run` tells the story."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import torch

from shardgen.format import Address
from trainer.checkpoint import Progress, save_state
from trainer.display import Display
from trainer.errors import RunError, UsageError
from trainer.files import replacing
from trainer.inference import as_function
from trainer.journal import Journal
from trainer.learner import Learner
from trainer.meter import NOT_FINITE, Meter
from trainer.run_folder import RunFolder
from trainer.stopping import StopRequest
from trainer.stream.mapped_shard import mend
from trainer.stream.source import Batch, Source
from trainer.tiles import is_out_of_memory
from trainer.validation import Validation, ValidationResult
from trainer.weights import save_weights

_SAVE_EVERY_S = 600.0  # a long way between validations must not be lost when the machine dies
_MAX_DAMAGED_SHARE = 0.001  # of the samples
_COMPILERS = ("torch._dynamo", "torch._inductor")  # where their errors are defined; importing those takes seconds


@dataclass(frozen=True)
class LoopSettings:
    """`patches` are those of a step; `data` is the fingerprint of the shards, `num_samples` their training samples.

    `smaller` is the advice to give when memory does not suffice.
    """

    total_steps: int
    val_every: int
    log_every: int
    patches: int
    num_samples: int
    folder: Address
    data: str
    smaller: str
    compiled: bool


class TrainingLoop:
    """Trains from `progress` on. Saves at each validation, every ten minutes, and when it is asked to stop."""

    def __init__(
        self,
        settings: LoopSettings,
        learner: Learner,
        source: Source,
        validation: Validation | None,
        progress: Progress,
        run: RunFolder,
        journal: Journal,
        display: Display,
    ) -> None:
        self._meter = Meter(source, settings.patches, progress.losses)
        self.last_validation: ValidationResult | None = None
        self._settings = settings
        self._learner = learner
        self._source = source
        self._validation = validation
        self._progress = progress
        self._run = run
        self._journal = journal
        self._display = display
        self._damaged: set[int] = set()
        self._saved_s = monotonic()
        self._warm = False

    def run(self, stop: StopRequest) -> None:
        """Train until all steps are done or a stop is asked for; in both cases everything is saved.

        RunError for a loss that is not finite or too many damaged samples; UsageError when memory does not suffice.
        """
        progress, settings = self._progress, self._settings
        if progress.step and not progress.validated:  # it was stopped between the step and its validation
            self._between_steps(stop)
        with self._advised():
            batches = self._sound(self._source.started())
        self._meter.start()
        while progress.step < settings.total_steps and not stop:
            loss = self._step(batches) if self._warm else self._first_step(batches)
            progress.step += 1
            progress.validated = False
            self._meter.add(loss, progress.step)
            self._display.step()
            self._between_steps(stop)
        if stop:
            self._save()
            stop.end()

    def _between_steps(self, stop: StopRequest) -> None:
        step, settings = self._progress.step, self._settings
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
        elif monotonic() - self._saved_s > _SAVE_EVERY_S:
            with self._meter.paused(step):
                self._save()

    def _first_step(self, batches: Iterator[Batch]) -> torch.Tensor:
        """The one in which a network is compiled, which does not count as training."""
        self._warm = True
        if not self._settings.compiled:
            return self._step(batches)
        with self._meter.paused(self._progress.step):
            start_s = monotonic()
            loss = self._step(batches)
            self._display.say(f"Compiled in {monotonic() - start_s:.0f} s")
            return loss

    def _step(self, batches: Iterator[Batch]) -> torch.Tensor:
        with self._advised():
            return self._learner.step(self._progress.step, batches)

    @contextmanager
    def _advised(self) -> Iterator[None]:
        """What goes wrong in computing a step becomes a UsageError where another setting helps."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                if self._settings.compiled and type(error).__module__.startswith(_COMPILERS):
                    reason = str(error).strip().splitlines()[0]
                    raise UsageError(f"--compile does not work here ({reason}); leave it out") from error
                raise
            raise UsageError(
                f"out of memory in step {self._progress.step + 1} on {self._learner.device}; {self._settings.smaller}"
            ) from error

    def _sound(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches as they come; damaged samples are named, and too many of them are an error."""
        for batch in batches:
            for number, reason in batch.damaged:
                if number not in self._damaged:
                    self._damaged.add(number)
                    self._journal.note("damaged", self._progress.step + 1, reason=reason)
                    self._display.say(f"Damaged, another sample takes its place: {reason}")
            limit = _MAX_DAMAGED_SHARE * self._settings.num_samples
            if len(self._damaged) > limit:
                raise RunError(
                    f"{len(self._damaged)} of {self._settings.num_samples:,} samples are damaged, more than "
                    f"{_MAX_DAMAGED_SHARE:.1%}: {reason}. {mend(self._settings.folder)}"
                )
            yield batch

    def _log(self) -> None:
        step = self._progress.step
        pace = self._meter.lap(step, self._learner.rate(max(0, step - 1)))
        if pace is not None:
            self._progress.trained_s += pace.seconds
            self._display.pace(pace)
            self._journal.note("train", step, **pace._asdict())

    def _validate(self, stop: StopRequest) -> None:
        step, progress = self._progress.step, self._progress
        if self._validation is None:
            progress.validated = True
            return
        result = self._validation.run(as_function(self._learner.judged, self._learner.device), stop)
        if result is None:
            return
        if progress.best_psnr_y is None or result.network.psnr_y > progress.best_psnr_y:
            self._save_weights(self._run.best)
            progress.best_psnr_y, progress.best_step = result.network.psnr_y, step
        self.last_validation = result
        self._report(step, result)
        progress.validated = True

    def _report(self, step: int, result: ValidationResult) -> None:
        figures = {f"bicubic_{name}": value for name, value in asdict(result.bicubic).items()}
        with replacing(self._run.previews / f"step-{step:06d}.png") as temporary:
            result.preview.save(temporary, "PNG")
        self._journal.note("val", step, **asdict(result.network), **figures)
        self._journal.picture("bicubic_network_hr", step, result.preview)
        if self._progress.best_psnr_y is not None:
            self._display.best(self._progress.best_psnr_y)
        self._display.say(
            f"Step {step:,}: PSNR-Y {result.network.psnr_y:.2f} dB ({result.gain_db:+.2f} against bicubic), "
            f"SSIM-Y {result.network.ssim_y:.4f} (bicubic {result.bicubic.ssim_y:.4f})"
        )

    def _save(self) -> None:
        self._meter.settle(self._progress.step)  # nothing is saved behind a loss that is not finite
        self._check_weights()
        self._save_weights(self._run.weights)
        save_state(self._run.state, self._settings.data, self._progress, self._learner.state())
        self._saved_s = monotonic()

    def _check_weights(self) -> None:
        if not self._learner.is_finite():
            raise RunError(f"the weights are not finite after step {self._progress.step:,}; {NOT_FINITE}")

    def _save_weights(self, path: Path) -> None:
        average = self._learner.average
        save_weights(path, self._learner.network.state_dict(), average.state_dict() if average else None)
