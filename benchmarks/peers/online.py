"""No store: every patch is derived from its JPEG, as in most super-resolution training code.

Decoded by simplejpeg (libjpeg-turbo), at reduced size as long as 512 px remain; the centre square resized to 512 px by
area averaging, downsampled and upsampled by cubic interpolation, then cropped.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers import map_style
from benchmarks.peers.pictures import opencv
from benchmarks.peers.task import SCALE, Batch, Pixels, Task

_SIZE_PX = 512


def prepare(task: Task) -> None:
    """Nothing to prepare."""


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches forever."""
    paths = sorted(path for path in Path(task.photos).rglob("*") if path.is_file())
    return map_style.batches(task, len(paths), partial(_open, paths))


def _open(paths: list[Path]) -> Callable[[int], tuple[Pixels, Pixels]]:
    return lambda index: _make(paths[index].read_bytes())


def _make(jpeg: bytes) -> tuple[Pixels, Pixels]:
    cv2, simplejpeg = opencv(), _simplejpeg()
    photo = simplejpeg.decode_jpeg(jpeg, "RGB", min_height=_SIZE_PX, min_width=_SIZE_PX)
    edge = min(photo.shape[:2])
    top, left = ((side - edge) // 2 for side in photo.shape[:2])
    square = photo[top : top + edge, left : left + edge]
    hr = cv2.resize(square, (_SIZE_PX, _SIZE_PX), interpolation=cv2.INTER_AREA)
    lr = cv2.resize(hr, (_SIZE_PX // SCALE, _SIZE_PX // SCALE), interpolation=cv2.INTER_CUBIC)
    return hr, cv2.resize(lr, (_SIZE_PX, _SIZE_PX), interpolation=cv2.INTER_CUBIC)


def _simplejpeg() -> Any:
    return import_module("simplejpeg")
