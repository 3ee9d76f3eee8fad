"""What a step is: parameters are drawn first, and then applied; the same parameters give the same pixels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardgen.degradation.rng import Dice
from shardgen.degradation.settings import Setting

# H x W x 3, RGB, C order. Grey levels 0-255, which a step may overshoot; those that cannot take it clip first.
Image = NDArray[np.float32]
Settings = Mapping[str, Any]
Parameters = dict[str, Any]  # plain JSON: numbers, names and lists of them
Size = tuple[int, int]  # height and width in px


class Sizes(NamedTuple):
    """What is known of an image while its parameters are drawn."""

    now: Size  # before this step
    hr: Size
    lr: Size


def draw_each(settings: Mapping[str, Setting]) -> Callable[[Settings, Dice, Sizes], Parameters]:
    """The usual way to draw: one parameter for each setting, by its own rule."""

    def draw(values: Settings, dice: Dice, sizes: Sizes) -> Parameters:
        return {name: setting.draw(values[name], dice) for name, setting in settings.items()}

    return draw


@dataclass(frozen=True)
class Step:
    """A kind of damage.

    `draw` makes parameters of a recipe's settings; a step that changes the size names the new one in them as
    `size: [height, width]`. `apply` is a pure function of image and parameters and leaves its image as it was.
    """

    summary: str
    settings: Mapping[str, Setting]
    draw: Callable[[Settings, Dice, Sizes], Parameters]
    apply: Callable[[Image, Parameters], Image]
