"""Where a patch is cut and how it is turned: drawn from (seed, epoch, sample number), never from the worker."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from srshards.imaging.pixels import Pixels
from srshards.sampling.counter_rng import below, draw
from srshards.sampling.schedule import BatchSamples

NUM_TURNS = 8  # the symmetries of the square: four quarter turns, each with and without a flip

_TOP_LEFT_TURN = np.array([[1], [2], [3]])  # keep the three draws of a sample apart
_UPSIDE_DOWN = 6  # the turn that leaves rows as they are
_FLIPPED_ROWS, _FLIPPED_COLUMNS, _FLIPPED_BOTH = 0, 1, -1  # as OpenCV numbers them


class Cut(NamedTuple):
    """One row's patch: top and left in px of the LR grid, and which of the eight symmetries is applied."""

    top: int
    left: int
    turn: int


@dataclass(frozen=True)
class PatchGrid:
    """The sizes of a square patch in px. `patch` is of HR; patches begin on whole LR pixels, so both match exactly.

    The image that the network sees has `hr // input_scale` px: the scale for LR, 1 for the upsampled image. A patch is
    turned by one of the first `turns` symmetries of the square (NUM_TURNS); 1 leaves it as it is.
    """

    hr: int
    scale: int
    patch: int
    input_scale: int
    turns: int = NUM_TURNS

    @property
    def input_patch(self) -> int:
        return self.patch // self.input_scale

    @property
    def bytes_per_row(self) -> int:
        """Of an HR patch and its input patch."""
        return 3 * (self.patch**2 + self.input_patch**2)

    def height_of(self, cut: Cut) -> tuple[float, float]:
        """Where a patch begins and ends, as shares of the height of the HR image or of the input's."""
        return cut.top * self.scale / self.hr, (cut.top * self.scale + self.patch) / self.hr

    def cuts(self, seed: int, draws: BatchSamples) -> list[Cut]:
        """One cut for each row of a batch."""
        places = (self.hr - self.patch) // self.scale + 1
        tops, lefts, turns = draw(seed, draws.epochs, draws.numbers, _TOP_LEFT_TURN)
        drawn = (below(tops, places), below(lefts, places), below(turns, self.turns))
        return list(map(Cut, *(column.tolist() for column in drawn)))

    def cut(self, hr: Pixels, small: Pixels, cut: Cut, hr_patch: Pixels, input_patch: Pixels) -> None:
        """Write the patches of an HR image (H x W x 3) and of the image that the network sees into their places.

        All are C-contiguous.
        """
        top, left, turn = cut
        scale, factor = self.scale, self.scale // self.input_scale
        _cut(hr, top * scale, left * scale, turn, hr_patch)
        _cut(small, top * factor, left * factor, turn, input_patch)


@cache
def lattice(turn: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Where a turned patch of p x p px finds its pixels in the image, each as (rows, columns).

    The corner that comes first, in units of p - 1; and how far from there the next row and the next column are.
    """
    cells: Pixels = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    turned = np.empty_like(cells)
    _turn(cells, turn, turned)
    (first, right), (down, _) = [[divmod(int(cell), 2) for cell in row] for row in turned[:, :, 0]]
    return first, (down[0] - first[0], down[1] - first[1]), (right[0] - first[0], right[1] - first[1])


def _cut(image: Pixels, top: int, left: int, turn: int, to: Pixels) -> None:
    size, width = len(to), image.shape[1]
    if turn not in (0, _UPSIDE_DOWN):
        _turn(image[top : top + size, left : left + size], turn, to)
        return
    # Rows of pixels as single items: NumPy copies those a quarter faster than the same bytes as pixels.
    row = _row_of(size)
    rows: npt.NDArray[np.void] = np.ndarray((size,), row, image, (top * width + left) * 3, (3 * width,))
    np.ndarray((size,), row, to)[:] = rows[::-1] if turn else rows


@cache
def _row_of(size: int) -> np.dtype[np.void]:
    return np.dtype((np.void, 3 * size))


def _turn(patch: Pixels, turn: int, to: Pixels) -> None:
    """`turn` 0-3: quarter turns counter-clockwise; 4-7: the same after a flip from left to right.

    OpenCV turns while it copies, at more than half of the speed of copying alone; NumPy's views take ten times as long.
    """
    if turn == 0:
        to[:] = patch
    elif turn == 1:
        cv2.rotate(patch, cv2.ROTATE_90_COUNTERCLOCKWISE, to)
    elif turn == 2:
        cv2.flip(patch, _FLIPPED_BOTH, to)
    elif turn == 3:
        cv2.rotate(patch, cv2.ROTATE_90_CLOCKWISE, to)
    elif turn == 4:
        cv2.flip(patch, _FLIPPED_COLUMNS, to)
    elif turn == 5:
        cv2.transpose(patch, to)
    elif turn == _UPSIDE_DOWN:
        cv2.flip(patch, _FLIPPED_ROWS, to)
    else:
        cv2.transpose(patch, to)
        cv2.flip(to, _FLIPPED_BOTH, to)
