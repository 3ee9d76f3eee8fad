"""`state.pt`: everything needed to resume a run, in one file."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from srshards.errors import UsageError
from srshards.process.shortages import shortage
from trainer.metrics_table import METRICS
from trainer.models.tensor_file import check_tensors, load_tensors, save_tensors

DEFAULT_BEST = "psnr_y@val"  # what the best weights are chosen by unless an option says otherwise
_VERSION = 1


@dataclass
class TrainingProgress:
    """Progress of a run. `validated` says whether the weights after `step` have been validated.

    `best` was reached after `best_step`; it is None before the first validation. It is the value of `best_by`,
    METRIC@SET. `best_images` is the fingerprint of the set, empty for the validation split.
    """

    step: int = 0
    validated: bool = False
    best: float | None = None
    best_by: str = DEFAULT_BEST
    best_images: str = ""
    best_step: int = 0
    trained_s: float = 0.0
    val_every: int | None = None  # steps between validations, once the interval has grown
    account: dict[str, float] = field(default_factory=dict)  # seconds by phase; empty in states of earlier versions
    losses: list[list[float]] = field(default_factory=list)  # of the steps since the last journal line
    collapse: dict[str, int] = field(default_factory=dict)  # counts of CollapseWatch; empty in earlier states
    damaged: list[int] = field(default_factory=list)  # numbers of damaged samples, each replaced by another sample


def save_state(path: Path, data: str, progress: TrainingProgress, tensors: dict[str, Any]) -> None:
    """Write the state. `data` is the shards' fingerprint, `tensors` the result of `Learner.state`."""
    save_tensors(path, {"version": _VERSION, "data": data, "progress": asdict(progress), **tensors})


@contextmanager
def state_errors(path: Path) -> Iterator[None]:
    """Raise UsageError for any error while a state is read; PyTorch raises many types for foreign files."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if shortage(error):
            raise
        raise UsageError(
            f"{path} is damaged or belongs to a different training; start a new run, e.g. with --init "
            f"{path.with_name('model.pth')}"
        ) from error


def load_state(path: Path, data: str) -> tuple[TrainingProgress, dict[str, Any]]:
    """Read what `save_state` wrote. UsageError if it cannot be read or belongs to other shards."""
    with state_errors(path):
        state = load_tensors(path)
        check_tensors(path, _tensors(state))
        version, trained_on = state["version"], state["data"]
        progress = TrainingProgress(**_as_current(state["progress"]))
        _check(progress)
    if version != _VERSION:
        raise UsageError(
            f"{path} has format version {version}, expected {_VERSION}; update sr-shards or start a new run"
        )
    if trained_on != data:
        raise UsageError(
            f"{path} was trained on other shards, so it cannot be resumed exactly; pass the original shards, or start "
            f"a new run with --init {path.with_name('model.pth')}"
        )
    return progress, state


def _as_current(progress: dict[str, Any]) -> dict[str, Any]:
    """Translate earlier versions: the best weights were chosen by PSNR-Y of the validation split, with one loss."""
    current = {"best" if name == "best_psnr_y" else name: value for name, value in progress.items()}
    losses = current.get("losses", [])
    return current | {"losses": [loss if isinstance(loss, list) else [loss] for loss in losses]}


def _tensors(state: Any) -> dict[str, Tensor]:
    """Return all nested tensors. Each container is visited once, however often it is referenced."""
    found: dict[str, Tensor] = {}
    pending, seen = [state], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            found[f"tensor {len(found)}"] = value
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
    return found


def _check(progress: TrainingProgress) -> None:
    """Raise ValueError or TypeError for impossible values."""
    counts = (
        progress.step,
        progress.best_step,
        progress.val_every or 0,
        *progress.damaged,
        *progress.collapse.values(),
    )
    if (
        any(type(count) is not int or not 0 <= count < 2**62 for count in counts)
        or type(progress.validated) is not bool
        or progress.best_by.partition("@")[0] not in METRICS
        or type(progress.best_images) is not str
    ):
        raise ValueError(f"invalid progress: {progress}")
    seconds, best = [float(progress.trained_s), *progress.account.values()], float(progress.best or 0)
    if (
        not all(0 <= each < math.inf for each in seconds)
        or math.isnan(best)
        or not all(type(loss) is float for losses in progress.losses for loss in losses)
        or len({len(losses) for losses in progress.losses}) > 1
    ):
        raise ValueError(f"invalid progress: {progress}")
