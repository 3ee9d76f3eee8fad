"""Position, flip and rotation of each patch, determined by (seed, epoch, sample number), never by the worker."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from srshards.imaging.pixels import Pixels
from srshards.imaging.upsampling import MARGIN_PX, upsample, upsample_part
from srshards.sampling.counter_rng import below, draw
from srshards.sampling.schedule import BatchSamples

NUM_SYMMETRIES = 8  # of the square: rotations by multiples of 90 degrees, each with and without a flip

_TOP_LEFT_SYMMETRY = np.array([[1], [2], [3]])  # keys that distinguish the three random numbers of a sample
_VERTICAL_FLIP = 6  # the symmetry that only reorders rows
_FLIP_ROWS, _FLIP_COLUMNS, _FLIP_BOTH = 0, 1, -1  # OpenCV's flip codes


class Cut(NamedTuple):
    """The patch of one row: top and left in px of the LR grid, and the number of the symmetry applied (0-7)."""

    top: int
    left: int
    symmetry: int


@dataclass(frozen=True)
class PatchGrid:
    """Sizes of images and square patches in px. `hr` and `patch` are those of HR; `scale` is HR px per LR px.

    Patches start on LR pixels, so that HR and input patches match exactly. The network input has `hr // input_scale`
    px: `input_scale` is the scale for LR and 1 for the upsampled image. One of the first `num_symmetries` symmetries of
    the square is applied to each patch; with 1, patches are not augmented. With `up_method`, the upsampled image is not
    stored: its patches are computed from LR by this method, with the bytes that they would have in a stored one.
    """

    hr: int
    scale: int
    patch: int
    input_scale: int
    num_symmetries: int = NUM_SYMMETRIES
    up_method: str | None = None

    @property
    def input_patch(self) -> int:
        return self.patch // self.input_scale

    @property
    def stored_input(self) -> int:
        """Edge length of the stored image that the network input is cut or computed from."""
        return self.hr // (self.scale if self.up_method else self.input_scale)

    @property
    def bytes_per_row(self) -> int:
        """Size of an HR patch and its input patch."""
        return 3 * (self.patch**2 + self.input_patch**2)

    def vertical_extent(self, cut: Cut) -> tuple[float, float]:
        """Return top and bottom of a patch as fractions of the image height, the same for HR and input."""
        return cut.top * self.scale / self.hr, (cut.top * self.scale + self.patch) / self.hr

    def stored_extent(self, cut: Cut) -> tuple[float, float]:
        """Return the part of the stored input image that is read, in the same way: more if it is upsampled."""
        top, bottom = self.vertical_extent(cut)
        margin = MARGIN_PX * self.scale / self.hr if self.up_method else 0
        return max(0, top - margin), min(1, bottom + margin)

    def draw_cuts(self, seed: int, samples: BatchSamples) -> npt.NDArray[np.int64]:
        """Draw one cut for each of N rows: a 3 x N array with the fields of `Cut`."""
        num_positions = (self.hr - self.patch) // self.scale + 1
        tops, lefts, symmetries = draw(seed, samples.epochs, samples.numbers, _TOP_LEFT_SYMMETRY)
        drawn = (below(tops, num_positions), below(lefts, num_positions), below(symmetries, self.num_symmetries))
        return np.stack(drawn)

    def cuts(self, seed: int, samples: BatchSamples) -> list[Cut]:
        """Draw one cut for each row of a batch."""
        return list(map(Cut, *self.draw_cuts(seed, samples).tolist()))

    def whole_input(self, stored: Pixels) -> Pixels:
        """Return the complete network input of a stored input image."""
        return upsample(stored, self.scale, self.up_method) if self.up_method else stored

    def cut(self, hr: Pixels, small: Pixels, cut: Cut, hr_patch: Pixels, input_patch: Pixels) -> None:
        """Write the patches of an HR image and a stored input image (H x W x 3) to `hr_patch` and `input_patch`.

        All arrays are C-contiguous.
        """
        _cut(hr, cut.top * self.scale, cut.left * self.scale, cut.symmetry, hr_patch)
        self.cut_input(small, cut, input_patch)

    def cut_input(self, small: Pixels, cut: Cut, input_patch: Pixels) -> None:
        """Write the patch of a stored input image to `input_patch`."""
        top, left, symmetry = cut
        scale, factor = self.scale, self.scale // self.input_scale
        if self.up_method:
            part = upsample_part(small, top, left, self.patch // scale, scale, self.up_method)
            _cut(part.pixels, part.top, part.left, symmetry, input_patch)
        else:
            _cut(small, top * factor, left * factor, symmetry, input_patch)


@cache
def lattice(symmetry: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return the pixel lattice of a transformed p x p patch in its image, as three (rows, columns) vectors.

    They are the position of its first pixel in units of p - 1, and the steps to the next row and the next column.
    """
    cells: Pixels = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    transformed = np.empty_like(cells)
    _transform(cells, symmetry, transformed)
    (first, right), (down, _) = [[divmod(int(cell), 2) for cell in row] for row in transformed[:, :, 0]]
    return first, (down[0] - first[0], down[1] - first[1]), (right[0] - first[0], right[1] - first[1])


def _cut(image: Pixels, top: int, left: int, symmetry: int, to: Pixels) -> None:
    size, width = len(to), image.shape[1]
    if symmetry not in (0, _VERTICAL_FLIP):
        _transform(image[top : top + size, left : left + size], symmetry, to)
        return
    # NumPy copies rows a quarter faster as single items than as pixels.
    row = _row_dtype(size)
    rows: npt.NDArray[np.void] = np.ndarray((size,), row, image, (top * width + left) * 3, (3 * width,))
    np.ndarray((size,), row, to)[:] = rows[::-1] if symmetry else rows


@cache
def _row_dtype(size: int) -> np.dtype[np.void]:
    return np.dtype((np.void, 3 * size))


def _transform(patch: Pixels, symmetry: int, to: Pixels) -> None:
    """Write a transformed patch: 0-3 rotate counter-clockwise by 90 degrees each; 4-7 first flip left to right.

    OpenCV reaches more than half the speed of a plain copy; copying from NumPy views is ten times slower.
    """
    if symmetry == 0:
        to[:] = patch
    elif symmetry == 1:
        cv2.rotate(patch, cv2.ROTATE_90_COUNTERCLOCKWISE, to)
    elif symmetry == 2:
        cv2.flip(patch, _FLIP_BOTH, to)
    elif symmetry == 3:
        cv2.rotate(patch, cv2.ROTATE_90_CLOCKWISE, to)
    elif symmetry == 4:
        cv2.flip(patch, _FLIP_COLUMNS, to)
    elif symmetry == 5:
        cv2.transpose(patch, to)
    elif symmetry == _VERTICAL_FLIP:
        cv2.flip(patch, _FLIP_ROWS, to)
    else:
        cv2.transpose(patch, to)
        cv2.flip(to, _FLIP_BOTH, to)
