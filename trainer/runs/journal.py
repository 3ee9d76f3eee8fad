"""The training log: `journal.jsonl` with one JSON object per event, and the same values for TensorBoard."""

import json
import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from srshards.storage.files import write_atomically, writing

_VAL = "val"  # the event of a validation, and the name of the validation split among its sets


class Journal:
    """Context manager that writes the log. Entries after `from_step`, where a resumed run continues, are removed.

    Lines are appended in place so that they can be followed (`tail -f`); a truncated last line is removed as well.
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
        self._previous_hook, threading.excepthook = threading.excepthook, self._ignore_os_errors
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        threading.excepthook = self._previous_hook
        try:
            self._file.close()
            self._board.close()
        except OSError:
            if error is None:  # else it only repeats the error that is being raised
                raise

    def _ignore_os_errors(self, args: threading.ExceptHookArgs) -> None:
        """Do not print an OSError of TensorBoard's thread: the next write raises it again."""
        if not isinstance(args.exc_value, OSError):
            self._previous_hook(args)

    def note(self, event: str, step: int, **values: Any) -> None:
        """Append a line to the journal, and its numbers to the TensorBoard curves `event/name`."""
        self._write(event, step, values)
        self._draw(event, step, values)

    def trained(self, step: int, values: Mapping[str, float], groups: Mapping[str, Mapping[str, float]]) -> None:
        """Append the measurements of the steps up to this one, and those of each group that has any.

        The curves are `train/NAME` and `GROUP/NAME`.
        """
        self._write("train", step, {**values, **{name: group for name, group in groups.items() if group}})
        self._draw("train", step, values)
        for name, group in groups.items():
            self._draw(name, step, group)

    def validated(self, step: int, sets: Mapping[str, Mapping[str, float]]) -> None:
        """Append the metrics of each set, the main set first, and add them to TensorBoard's curves.

        The line has the metrics of the main set as its own values, its name if that is not `val`, and the others as
        `sets`. The curves are `val/METRIC` or, for other sets, `val_SET/METRIC`.
        """
        (main, metrics), *others = sets.items()
        line: dict[str, Any] = {**metrics}
        if main != _VAL:
            line["set"] = main
        if others:
            line["sets"] = {name: {key: _plain(value) for key, value in values.items()} for name, values in others}
        self._write(_VAL, step, line)
        for name, values in sets.items():
            self._draw(_VAL if name == _VAL else f"{_VAL}_{name}", step, values)

    def _write(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        line = {"event": event, "step": step, **{name: _plain(value) for name, value in values.items()}}
        with writing(self._path):
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def _draw(self, group: str, step: int, values: Mapping[str, Any]) -> None:
        with writing(self._board_path):
            for name, value in values.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    self._board.add_scalar(f"{group}/{name}", value, step)

    def image(self, name: str, step: int, image: Image.Image) -> None:
        """Add an image to TensorBoard."""
        with writing(self._board_path):
            self._board.add_image(name, np.asarray(image), step, dataformats="HWC")
            self._board.flush()


def _lines_up_to(path: Path, step: int) -> Iterator[bytes]:
    with open(path, "rb") as file:  # in text mode, U+2028 or U+0085 in a message would split its line
        for line in file:
            try:
                if json.loads(line.decode(errors="replace"))["step"] <= step:
                    yield line.removesuffix(b"\n") + b"\n"
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # truncated when the run was killed


def _plain(value: Any) -> Any:
    """Replace infinity, the PSNR of identical images, by None: JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
