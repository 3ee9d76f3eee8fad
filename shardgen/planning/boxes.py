"""The parts of a photo that become HR images, as integer boxes."""

from collections.abc import Iterator
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle in px: left edge, top edge, width, height."""

    x: int
    y: int
    w: int
    h: int


def boxes(height: int, width: int, fit: str, size: int, step: int) -> Iterator[Box]:
    """Yield the parts of an upright photo that become HR images, in px of the photo.

    `cover` yields the largest centred square, `stretch` the complete photo, `tile` squares of `size` px every `step`
    px, row by row; the last tile of each row and column is moved inwards so that the edge is covered. A photo smaller
    than a tile yields none.
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
    """Return the factor by which the decoder may reduce the photo before HR is rendered: 8, 4, 2 or 1.

    It is the largest one that divides the box's edges and leaves at least `size` px.
    """
    if fit == "tile":
        return 1
    (box,) = boxes(height, width, fit, size, size)
    return next((by for by in (8, 4, 2) if not any(edge % by for edge in box) and min(box.w, box.h) >= by * size), 1)


def num_tiles(height: int, width: int, size: int, step: int) -> int:
    """Return the number of tiles that `boxes` would yield, which may be too many to list."""
    return _num_starts(height, size, step) * _num_starts(width, size, step)


def _num_starts(length: int, size: int, step: int) -> int:
    return 0 if length < size else 1 - (size - length) // step  # ceiling division


def _starts(length: int, size: int, step: int) -> Iterator[int]:
    for number in range(_num_starts(length, size, step)):
        yield min(number * step, length - size)


def cropped_box(box: Box, size: int, hr_size: int) -> Box:
    """Return the part of `box` that remains when its rendering of `size` px is cropped to its top left `hr_size` px."""
    return Box(box.x, box.y, round(box.w * hr_size / size), round(box.h * hr_size / size))
