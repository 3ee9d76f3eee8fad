"""The outputs of a training run: log, progress, weights and state. Only rank 0 writes and prints."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from PIL import Image

from srshards.errors import RunError
from srshards.imaging.contact_sheet import save_png
from srshards.storage.store import StoreError
from trainer.evaluation.scores import Scores
from trainer.models.weights import save_weights
from trainer.runs.checkpoint import TrainingProgress, save_state
from trainer.runs.folder import RunFolder
from trainer.runs.journal import Journal
from trainer.training.background import BackgroundWriter
from trainer.training.display import Display
from trainer.training.learner import Learner
from trainer.training.meter import Pace
from trainer.training.snapshot import Snapshot
from trainer.training.validation import SetMeans, ValidationResult, summary_lines

_PATIENCE_S = 300.0  # for the upload of a save to an object store, for which the next save waits


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

    def validated(self, step: int, result: ValidationResult, best: str) -> None:
        """Log the metrics of the weights after this step, and show `best`, the best value so far.

        The next save writes the preview.
        """

    def keep_best(self) -> None:
        """Make the next save write its weights as the best so far, too."""

    def save(self, progress: TrainingProgress, learner: Learner) -> None:
        """Copy state and weights, then write them in a thread. Waits until the previous save is written."""

    def check(self) -> None:
        """Raise the error of a save that could not be written. Cheap; to be called between steps."""

    def flush(self) -> None:
        """Wait until the last save is written."""


@dataclass(frozen=True)
class _Save:
    """What a save writes. `state` is a copy of the learner's; `preview` is None without a validation."""

    progress: TrainingProgress
    state: dict[str, Any]
    is_best: bool
    preview: Image.Image | None


class RunRecord(Record):
    """Writes to the run folder and shows progress on stderr. `data` is the shards' fingerprint."""

    def __init__(
        self, run: RunFolder, data: str, journal: Journal, display: Display, background: BackgroundWriter
    ) -> None:
        self._run = run
        self._data = data
        self._journal = journal
        self._display = display
        self._background = background
        self._snapshot = Snapshot()
        self._is_best = False
        self._preview: Image.Image | None = None
        self._outages: list[tuple[int, StoreError]] = []  # in the thread, not yet reported; with the step of the save
        self._last_step = 0  # of the journal

    def say(self, line: str) -> None:
        self._display.say(line)

    def note(self, event: str, step: int, **values: Any) -> None:
        self._last_step = step
        self._journal.note(event, step, **values)

    def stepped(self) -> None:
        self._run.has_steps = True
        self._display.step()

    def pace(self, step: int, pace: Pace) -> None:
        self._display.pace(pace)
        self._last_step = step
        values = pace._asdict()
        self._journal.trained(step, values, values.pop("losses"))

    def validated(self, step: int, result: ValidationResult, best: str) -> None:
        self._preview = result.preview
        self._last_step = step
        self._journal.validated(step, {name: _with_baseline(one) for name, one in result.sets.items()})
        self._display.best(best)
        self._display.say("\n".join(summary_lines(step, result)))

    def keep_best(self) -> None:
        self._is_best = True

    def save(self, progress: TrainingProgress, learner: Learner) -> None:
        self.flush()  # until then, the thread reads the copy
        state = self._snapshot.take(learner.state())
        save = _Save(deepcopy(progress), state, self._is_best, self._preview)
        self._is_best, self._preview = False, None
        self._background.start(lambda: self._write(save))

    def check(self) -> None:
        self._background.check()
        self._report_outages()

    def flush(self) -> None:
        self._background.wait()
        self._report_outages()

    def _write(self, save: _Save) -> None:
        """Write the files of a save, in the thread."""
        run, step = self._run, save.progress.step
        weights = save.state["params"], save.state["params_ema"]
        # What the state says to be done comes before it: the best weights, and a validation with its preview.
        if save.is_best:
            save_weights(run.best, *weights)
        if save.preview is not None:
            save_png(save.preview, run.previews / f"step-{step:06d}.png", "trainer train")
            self._journal.image("bicubic_network_hr", step, save.preview)
        # State first: weights without a state then mean that the state was lost, and the run must not restart at 0.
        save_state(run.state, self._data, save.progress, save.state)
        save_weights(run.weights, *weights)
        try:
            run.publish(_PATIENCE_S)
        except StoreError as error:  # an outage must not end the training; only the last save must succeed
            self._outages.append((step, error))

    def _report_outages(self) -> None:
        """Report failed uploads in the loop's thread, so that the steps of the journal's lines do not decrease."""
        while self._outages:
            step, error = self._outages.pop(0)
            self.note("unsaved", max(step, self._last_step), message=str(error))
            self.say(f"{error}. Training continues; the next save retries.")


def _with_baseline(result: SetMeans) -> Scores:
    return {**result.network, **{f"bicubic_{name}": value for name, value in result.bicubic.items()}}


@contextmanager
def open_record(run: RunFolder, data: str, first: int, total: int, patches_per_step: int) -> Iterator[RunRecord]:
    """Yield the record of a run that has completed `first` of its `total` steps. At the end, its saves are written."""
    with (
        Journal(run.journal, run.tensorboard, first) as journal,
        Display(first, total, patches_per_step) as display,
        BackgroundWriter() as background,
    ):
        record = RunRecord(run, data, journal, display, background)
        try:
            yield record
        except BaseException:
            try:
                record.flush()
            except RunError as error:  # not the reason for the end of the run
                record.say(f"The last save failed, too: {error}")
            raise
