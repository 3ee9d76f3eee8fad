"""Where a patch is cut and how it is turned: drawn from (seed, epoch, sample number), never from the worker."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trainer.pixels import Pixels
from trainer.stream.draws import below, draw
from trainer.stream.schedule import Draws

_TOP, _LEFT, _TURN = 1, 2, 3  # keep the three draws of a sample apart
NUM_TURNS = 8  # the symmetries of the square: four quarter turns, each with and without a flip


class Cut(NamedTuple):
    """One row's patch: top and left in px of the LR grid, and which of the eight symmetries is applied."""

    top: int
    left: int
    turn: int


@dataclass(frozen=True)
class PatchGrid:
    """The sizes of a square patch in px. `patch` is of HR; patches begin on whole LR pixels, so both match exactly.

    The image that the network sees has `hr // input_scale` px: the scale for LR, 1 for the upsampled image.
    """

    hr: int
    scale: int
    patch: int
    input_scale: int

    @property
    def input_patch(self) -> int:
        return self.patch // self.input_scale

    @property
    def bytes_per_row(self) -> int:
        """Of an HR patch and its input patch."""
        return 3 * (self.patch**2 + self.input_patch**2)

    def cuts(self, seed: int, draws: Draws) -> list[Cut]:
        """One cut for each row of a batch."""
        places = (self.hr - self.patch) // self.scale + 1
        tops = below(draw(seed, draws.epochs, draws.numbers, _TOP), places)
        lefts = below(draw(seed, draws.epochs, draws.numbers, _LEFT), places)
        turns = below(draw(seed, draws.epochs, draws.numbers, _TURN), NUM_TURNS)
        return [Cut(*row) for row in np.stack([tops, lefts, turns], axis=1).tolist()]

    def cut_hr(self, hr: Pixels, cut: Cut) -> Pixels:
        """The patch of an HR image (H x W x 3), as a view."""
        return _turned(_window(hr, cut.top * self.scale, cut.left * self.scale, self.patch), cut.turn)

    def cut_input(self, image: Pixels, cut: Cut) -> Pixels:
        """The same patch of the image that the network sees, as a view."""
        factor = self.scale // self.input_scale
        return _turned(_window(image, cut.top * factor, cut.left * factor, self.input_patch), cut.turn)


def _window(image: Pixels, top: int, left: int, size: int) -> Pixels:
    return image[top : top + size, left : left + size]


def _turned(patch: Pixels, turn: int) -> Pixels:
    """`turn` 0-3: quarter turns counter-clockwise; 4-7: the same after a flip from left to right."""
    return np.rot90(patch[:, ::-1] if turn >= 4 else patch, turn % 4)
