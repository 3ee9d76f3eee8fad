"""Without a store: every patch begins with its JPEG, as most super-resolution training code does it.

Decoded by simplejpeg (libjpeg-turbo), which may decode at a fraction of the size as long as 512 px remain; the centre
square made 512 px by area averaging, made small and large again by cubic interpolation, then cut.
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
    """There is nothing to make."""


def batches(task: Task) -> Iterator[Batch]:
    """Endless batches."""
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
