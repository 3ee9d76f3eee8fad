"""Pillow's own limit on the size of images, out of the way where another one is checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from PIL import Image

_lock = Lock()
_num_inside = 0
_limit: int | None = None


@contextmanager
def without_size_limit() -> Iterator[None]:
    """Pillow opens and decodes images of any size inside, in this thread and all others.

    Its limit is a global variable, and lower than what cameras make. Several threads may be inside at a time: the first
    puts the limit aside, the last puts it back. Whoever goes in must check sizes before memory is spent on pixels.
    """
    global _num_inside, _limit
    with _lock:
        if not _num_inside:
            _limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _num_inside += 1
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            if not _num_inside:
                Image.MAX_IMAGE_PIXELS = _limit
