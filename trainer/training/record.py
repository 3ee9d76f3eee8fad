"""The outputs of a training run: log, progress, weights and state. Only rank 0 writes and prints."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from srshards.imaging.contact_sheet import save_png
from srshards.storage.store import StoreError
from trainer.models.weights import save_weights
from trainer.runs.checkpoint import TrainingProgress, save_state
from trainer.runs.folder import RunFolder
from trainer.runs.journal import Journal
from trainer.training.display import Display
from trainer.training.learner import Learner
from trainer.training.meter import Pace
from trainer.training.validation import ValidationResult

_PATIENCE_S = 300.0  # for the upload of a save to an object store, during which all ranks wait


class Record:
    """Receiver of everything that a run logs and saves. This base class, for ranks other than 0, discards it."""

    def say(self, line: str) -> None:
        """Print a line."""

    def note(self, event: str, step: int, **values: Any) -> None:
        """Write an event to the journal."""

    def stepped(self) -> None:
        """Count a completed step."""

    def pace(self, step: int, pace: Pace) -> None:
        """Log the measurements of the steps up to this one."""

    def validated(self, step: int, result: ValidationResult, best_psnr_y: float) -> None:
        """Log the metrics and the preview of the weights after this step, and the best PSNR-Y so far."""

    def keep_best(self, learner: Learner) -> None:
        """Write the weights as the best so far."""

    def save(self, progress: TrainingProgress, learner: Learner) -> None:
        """Write state and weights."""


class RunRecord(Record):
    """Writes to the run folder and shows progress on stderr. `data` is the shards' fingerprint."""

    def __init__(self, run: RunFolder, data: str, journal: Journal, display: Display) -> None:
        self._run = run
        self._data = data
        self._journal = journal
        self._display = display

    def say(self, line: str) -> None:
        self._display.say(line)

    def note(self, event: str, step: int, **values: Any) -> None:
        self._journal.note(event, step, **values)

    def stepped(self) -> None:
        self._run.has_steps = True
        self._display.step()

    def pace(self, step: int, pace: Pace) -> None:
        self._display.pace(pace)
        self._journal.note("train", step, **pace._asdict())

    def validated(self, step: int, result: ValidationResult, best_psnr_y: float) -> None:
        baseline = {f"bicubic_{name}": value for name, value in asdict(result.bicubic).items()}
        save_png(result.preview, self._run.previews / f"step-{step:06d}.png", "trainer train")
        self._journal.note("val", step, **asdict(result.network), **baseline)
        self._journal.image("bicubic_network_hr", step, result.preview)
        self._display.best(best_psnr_y)
        self._display.say(
            f"Step {step:,}: PSNR-Y {result.network.psnr_y:.2f} dB ({result.gain_db:+.2f} vs. bicubic), "
            f"SSIM-Y {result.network.ssim_y:.4f} (bicubic {result.bicubic.ssim_y:.4f})"
        )

    def keep_best(self, learner: Learner) -> None:
        save_weights(self._run.best, *learner.weights())

    def save(self, progress: TrainingProgress, learner: Learner) -> None:
        # State first: weights without a state then mean that the state was lost, and the run must not restart at 0.
        save_state(self._run.state, self._data, progress, learner.state())
        save_weights(self._run.weights, *learner.weights())
        try:
            self._run.publish(_PATIENCE_S)
        except StoreError as error:  # an outage must not end the training; only the last save must succeed
            self.note("unsaved", progress.step, message=str(error))
            self.say(f"{error}. Training continues; the next save retries.")


@contextmanager
def open_record(run: RunFolder, data: str, first: int, total: int) -> Iterator[RunRecord]:
    """Yield the record of a run that has completed `first` of its `total` steps."""
    with Journal(run.journal, run.tensorboard, first) as journal, Display(first, total) as display:
        yield RunRecord(run, data, journal, display)
