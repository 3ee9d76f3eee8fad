"""HR becomes LR, and LR is enlarged again."""

from shardgen.pixels import Pixels
from shardgen.resample import resize

# An area average only makes sense for shrinking; OpenCV's "area" enlargement is a distorted linear one.
_ENLARGING = {"area": "cubic"}


def shrink(hr: Pixels, scale: int, method: str) -> Pixels:
    """LR: `hr` at 1/scale of its height and width, which must be multiples of `scale`."""
    return resize(hr, hr.shape[0] // scale, hr.shape[1] // scale, method)


def enlarge(lr: Pixels, scale: int, method: str) -> Pixels:
    """`up`: `lr` at scale times its height and width, with the same method (`area`: cubic)."""
    return resize(lr, lr.shape[0] * scale, lr.shape[1] * scale, _ENLARGING.get(method, method))
