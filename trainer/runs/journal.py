"""What happened in a run: a plain `journal.jsonl`, a line per event, and the same figures for TensorBoard."""

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from srshards.storage.files import write_atomically, writing


class Journal:
    """A context manager. `from_step` is where the run goes on: what was noted of later steps is taken back.

    Lines are appended and not renamed into place, so that they can be watched; one that was cut off is taken back too.
    """

    def __init__(self, path: Path, tensorboard: Path, from_step: int) -> None:
        with writing(path):
            if path.exists():
                write_atomically(path, b"".join(_lines_up_to(path, from_step)))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by __exit__)
        self._path, self._board_path = path, tensorboard
        with writing(tensorboard):
            self._board = SummaryWriter(str(tensorboard), purge_step=from_step + 1)

    def __enter__(self) -> "Journal":
        self._former_hook, threading.excepthook = threading.excepthook, self._pass_over
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        threading.excepthook = self._former_hook
        try:
            self._file.close()
            self._board.close()
        except OSError:
            if error is None:  # else it is the same full disk once more
                raise

    def _pass_over(self, args: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread hands an error over to the next write, where it is reported; Python prints it too."""
        if not isinstance(args.exc_value, OSError):
            self._former_hook(args)

    def note(self, event: str, step: int, **values: Any) -> None:
        """A line of the journal; the numbers among its values become curves `event/name` in TensorBoard."""
        line = {"event": event, "step": step, **{name: _plain(value) for name, value in values.items()}}
        with writing(self._path):
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        with writing(self._board_path):
            for name, value in values.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    self._board.add_scalar(f"{event}/{name}", value, step)

    def picture(self, name: str, step: int, picture: Image.Image) -> None:
        with writing(self._board_path):
            self._board.add_image(name, np.asarray(picture), step, dataformats="HWC")
            self._board.flush()


def _lines_up_to(path: Path, step: int) -> Iterator[bytes]:
    with open(path, "rb") as file:  # as text, a message with U+2028 or U+0085 in it would be several lines
        for line in file:
            try:
                if json.loads(line.decode(errors="replace"))["step"] <= step:
                    yield line.removesuffix(b"\n") + b"\n"
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # cut off when the run was killed


def _plain(value: Any) -> Any:
    """JSON has no infinity: the PSNR of equal images becomes null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
