"""Disable Pillow's limit on image size where another limit is checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from PIL import Image

_lock = Lock()
_num_inside = 0
_limit: int | None = None


@contextmanager
def without_size_limit() -> Iterator[None]:
    """Let Pillow open images of any size in the block, in all threads.

    Pillow's limit is a global variable, lower than the size of some cameras' photos. The first thread to enter disables
    it, the last to leave restores it. Callers must check the size before allocating memory for pixels.
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
