"""Everything that resuming needs, in one file: `state.pt`."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srshards.errors import UsageError
from srshards.process.shortages import shortage
from srshards.storage.files import write_atomically, writing
from trainer.models.tensor_file import check_tensors, load_tensors

_VERSION = 1


@dataclass
class TrainingProgress:
    """How far a run is. `validated` says whether the weights of `step` were looked at already.

    `best_psnr_y` (dB) is that of `best_step`, None before the first validation.
    """

    step: int = 0
    validated: bool = False
    best_psnr_y: float | None = None
    best_step: int = 0
    trained_s: float = 0.0
    losses: list[float] = field(default_factory=list)  # of the steps since the journal's last line
    damaged: list[int] = field(default_factory=list)  # numbers of the samples that other samples have replaced


def save_state(path: Path, data: str, progress: TrainingProgress, tensors: dict[str, Any]) -> None:
    """`data` is the fingerprint of the shards; `tensors` the state dicts of network, average, optimiser and scaler."""
    stream = io.BytesIO()  # a full disk is then an OSError, which PyTorch's own writing hides
    torch.save({"version": _VERSION, "data": data, "progress": asdict(progress), **tensors}, stream)
    with writing(path):
        write_atomically(path, stream.getbuffer())


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """UsageError for whatever goes wrong with a state: torch raises all sorts of things for files not its own."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if shortage(error):
            raise
        raise UsageError(
            f"{path} is not a state that this training can go on with; begin a new run, e.g. with --init "
            f"{path.with_name('model.pth')}"
        ) from error


def load_state(path: Path, data: str) -> tuple[TrainingProgress, dict[str, Any]]:
    """What `save_state` wrote. UsageError when it cannot be read or belongs to other shards."""
    with explained(path):
        state = load_tensors(path)
        check_tensors(path, _tensors(state))
        version, trained_on, progress = state["version"], state["data"], TrainingProgress(**state["progress"])
        _check(progress)
    if version != _VERSION:
        raise UsageError(f"{path} has version {version}, this program reads {_VERSION}; update it, or begin a new run")
    if trained_on != data:
        raise UsageError(
            f"{path} was trained on other shards than these, so it cannot go on exactly; name those shards, or begin a "
            f"new run with --init {path.with_name('model.pth')}"
        )
    return progress, state


def _tensors(state: Any) -> dict[str, Tensor]:
    """All that there are, however deep: each once, as what holds them may be there any number of times."""
    found: dict[str, Tensor] = {}
    waiting, seen = [state], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            found[f"tensor {len(found)}"] = value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return found


def _check(progress: TrainingProgress) -> None:
    """ValueError or TypeError when that is nowhere that a run could be."""
    counts = (progress.step, progress.best_step, *progress.damaged)
    if (
        any(type(count) is not int or not 0 <= count < 2**62 for count in counts)
        or type(progress.validated) is not bool
    ):
        raise ValueError(f"no progress of a run: {progress}")
    seconds, best = float(progress.trained_s), float(progress.best_psnr_y or 0)
    if not math.isfinite(seconds) or math.isnan(best) or not all(type(loss) is float for loss in progress.losses):
        raise ValueError(f"no progress of a run: {progress}")
