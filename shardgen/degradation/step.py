"""The interface of degradation steps: parameters are drawn, then applied; equal parameters give equal pixels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardgen.degradation.rng import KeyedRng
from shardgen.degradation.settings import Setting

# H x W x 3, RGB, C order. Grey levels 0-255; a step may overshoot, and steps that need this range clip first.
Image = NDArray[np.float32]
Settings = Mapping[str, Any]
Parameters = dict[str, Any]  # JSON: numbers, names and lists of them
Size = tuple[int, int]  # height and width in px


class Sizes(NamedTuple):
    """The sizes known when a step's parameters are drawn."""

    now: Size  # of the image before this step
    hr: Size
    lr: Size


def draw_each(settings: Mapping[str, Setting]) -> Callable[[Settings, KeyedRng, Sizes], Parameters]:
    """Return a `Step.draw` that draws one parameter per setting, independently."""

    def draw(values: Settings, rng: KeyedRng, sizes: Sizes) -> Parameters:
        return {name: setting.draw(values[name], rng) for name, setting in settings.items()}

    return draw


@dataclass(frozen=True)
class Step:
    """A type of degradation.

    `draw` returns parameters drawn from a recipe's settings; a step that changes the size includes the new size as
    `size: [height, width]`. `apply` is a pure function of image and parameters.

    `added` are the settings that the first recipes and records did not have. Where such a setting has its default, it
    is omitted from manifests and records, so that recipes without it have the bytes, and so the shards, of before.
    """

    summary: str
    settings: Mapping[str, Setting]
    draw: Callable[[Settings, KeyedRng, Sizes], Parameters]
    apply: Callable[[Image, Parameters], Image]
    added: tuple[str, ...] = ()

    def plain(self, values: Settings) -> dict[str, Any]:
        """Return the settings for the manifest: all but those added later that have their defaults."""
        return {
            name: value
            for name, value in values.items()
            if name not in self.added or value != self.settings[name].default
        }
