"""What a run leaves behind and says while it lasts, in one place: of many ranks, the first alone does it."""

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

_PATIENCE_S = 300.0  # with a store, at a save: all ranks wait for it


class Record:
    """What the training loop tells, and has kept. This one keeps and says nothing, as all ranks but the first do."""

    def say(self, line: str) -> None:
        """A line for whoever is watching."""

    def note(self, event: str, step: int, **values: Any) -> None:
        """An event for the journal."""

    def stepped(self) -> None:
        """One more step is done."""

    def pace(self, step: int, pace: Pace) -> None:
        """What the steps up to this one were like."""

    def validated(self, step: int, result: ValidationResult, best_psnr_y: float) -> None:
        """Figures and a preview of the weights after this step, and the best PSNR-Y of the run so far."""

    def keep_best(self, learner: Learner) -> None:
        """The weights are the best so far."""

    def save(self, progress: TrainingProgress, learner: Learner) -> None:
        """Weights and state."""


class RunRecord(Record):
    """Writes to the run's folder and shows the run on stderr. `data` is the fingerprint of the shards."""

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
        figures = {f"bicubic_{name}": value for name, value in asdict(result.bicubic).items()}
        save_png(result.preview, self._run.previews / f"step-{step:06d}.png", "trainer train")
        self._journal.note("val", step, **asdict(result.network), **figures)
        self._journal.picture("bicubic_network_hr", step, result.preview)
        self._display.best(best_psnr_y)
        self._display.say(
            f"Step {step:,}: PSNR-Y {result.network.psnr_y:.2f} dB ({result.gain_db:+.2f} against bicubic), "
            f"SSIM-Y {result.network.ssim_y:.4f} (bicubic {result.bicubic.ssim_y:.4f})"
        )

    def keep_best(self, learner: Learner) -> None:
        save_weights(self._run.best, *learner.weights())

    def save(self, progress: TrainingProgress, learner: Learner) -> None:
        # In this order, so that weights without a state tell of one that was lost: that run must not begin anew.
        save_state(self._run.state, self._data, progress, learner.state())
        save_weights(self._run.weights, *learner.weights())
        try:
            self._run.publish(_PATIENCE_S)
        except StoreError as error:  # must not cost days of training: the next save tries again, the end insists
            self.note("unsaved", progress.step, message=str(error))
            self.say(f"{error} Training goes on; the next save tries again.")


@contextmanager
def recorded(run: RunFolder, data: str, first: int, total: int) -> Iterator[RunRecord]:
    """The record of a run that has `first` of its `total` steps behind it."""
    with Journal(run.journal, run.tensorboard, first) as journal, Display(first, total) as display:
        yield RunRecord(run, data, journal, display)
