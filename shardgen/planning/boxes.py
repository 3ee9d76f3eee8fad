"""Which part of a photo becomes an HR image. Integers only; no pixels here."""

from collections.abc import Iterator
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle in px: left, top, width, height."""

    x: int
    y: int
    w: int
    h: int


def boxes(height: int, width: int, fit: str, size: int, step: int) -> Iterator[Box]:
    """The parts of an upright photo that become HR images, in the photo's own px.

    `cover` gives the largest centred square, `stretch` the whole photo, `tile` squares of `size` px every `step` px,
    row by row, the last of a row and column moved inwards so that nothing at the edge is lost. A photo smaller than a
    tile gives none.
    """
    if fit == "stretch":
        yield Box(0, 0, width, height)
    elif fit == "cover":
        side = min(height, width)
        yield Box((width - side) // 2, (height - side) // 2, side, side)
    else:
        for y in _starts(height, size, step):
            for x in _starts(width, size, step):
                yield Box(x, y, size, size)


def reduction(height: int, width: int, fit: str, size: int) -> int:
    """By how much the photo may be reduced before an HR image is rendered: 8, 4, 2 or 1.

    The largest by which its box can be divided, such that `size` px or more are left.
    """
    if fit == "tile":
        return 1
    (box,) = boxes(height, width, fit, size, size)
    return next((by for by in (8, 4, 2) if not any(edge % by for edge in box) and min(box.w, box.h) >= by * size), 1)


def num_tiles(height: int, width: int, size: int, step: int) -> int:
    """The number of `boxes` of `tile`, which may be too many to list."""
    return _num_starts(height, size, step) * _num_starts(width, size, step)


def _num_starts(length: int, size: int, step: int) -> int:
    return 0 if length < size else 1 - (size - length) // step  # divided upwards


def _starts(length: int, size: int, step: int) -> Iterator[int]:
    for number in range(_num_starts(length, size, step)):
        yield min(number * step, length - size)


def shown(box: Box, size: int, hr_size: int) -> Box:
    """The part of `box` that is left when its `size` x `size` px rendering is cropped to the top left `hr_size` px."""
    return Box(box.x, box.y, round(box.w * hr_size / size), round(box.h * hr_size / size))
