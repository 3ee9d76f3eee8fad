"""Loose PNG files, one per image, decoded completely by OpenCV for every patch."""

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.peers import map_style
from benchmarks.peers.pictures import decode_png, encode_png
from benchmarks.peers.task import Batch, Pixels, Task, pairs


def prepare(task: Task) -> None:
    """Write `000000.hr.png`, `000000.input.png`, ..."""
    for index, pair in enumerate(pairs(task)):
        for name, image in zip(("hr", "input"), pair, strict=True):
            (task.folder / f"{index:06d}.{name}.png").write_bytes(encode_png(image))


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches forever."""
    count = len(list(task.folder.glob("*.hr.png")))
    return map_style.batches(task, count, partial(_open, task))


def _open(task: Task) -> Callable[[int], tuple[Pixels, Pixels]]:
    folder = task.folder

    def images(index: int) -> tuple[Pixels, Pixels]:
        hr, small = (decode_png((folder / f"{index:06d}.{name}.png").read_bytes()) for name in ("hr", "input"))
        return hr, small

    return images
