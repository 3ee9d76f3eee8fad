"""A recipe: a list of steps, read from YAML, drawn for every LR image, and applied as it was drawn.

    - blur: {sigma: [0.2, 3]}                        a step, with what differs from its defaults
    - jpeg: {quality: [30, 95], probability: 0.5}    any step can be left to chance
    - one_of:                                        one branch, by weight; it may be empty
        - {weight: 0.8, steps: [{gaussian_noise: {sigma: [1, 30]}}]}
        - {weight: 0.2, steps: []}
    - shuffle: [blur, resize, to_lr, jpeg]           in any order, but `to_lr` after every `resize`

An image that does not have LR size after the last step is brought there by averaging areas.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from shardgen.degradation.rng import Dice
from shardgen.degradation.settings import Chance, read_weight, require_known, require_some_weight
from shardgen.degradation.step import Image, Parameters, Size, Sizes
from shardgen.degradation.steps import STEPS
from srshards.errors import UsageError
from srshards.imaging.pixels import Pixels, to_pixels

_PROBABILITY = Chance(1.0, "how often the step is taken")
_ONE_OF, _SHUFFLE = "one_of", "shuffle"
_TO_LR, _RESIZE = "to_lr", "resize"

Drawn = list[Parameters]  # the steps of one LR image: each its name as `step`, and its parameters


@dataclass(frozen=True)
class TakeStep:
    """One step; `values` are all of its settings."""

    name: str
    values: Mapping[str, Any]
    probability: float

    def plain(self) -> dict[str, Any]:
        chance = {} if self.probability == 1 else {"probability": self.probability}
        return {self.name: {**self.values, **chance}}


@dataclass(frozen=True)
class OneOf:
    """One of some branches, by weight."""

    weights: tuple[float, ...]
    branches: tuple["Nodes", ...]

    def plain(self) -> dict[str, Any]:
        pairs = zip(self.weights, self.branches, strict=True)
        return {_ONE_OF: [{"weight": weight, "steps": [node.plain() for node in branch]} for weight, branch in pairs]}


@dataclass(frozen=True)
class Shuffle:
    """All of its nodes, in any order."""

    nodes: "Nodes"

    def plain(self) -> dict[str, Any]:
        return {_SHUFFLE: [node.plain() for node in self.nodes]}


Node = TakeStep | OneOf | Shuffle
Nodes = tuple[Node, ...]


@dataclass(frozen=True)
class Recipe:
    """How LR images are made of HR images. `name` is for people; `steps` decide."""

    name: str
    steps: Nodes

    @cached_property
    def plain(self) -> dict[str, Any]:
        """Name and steps as the manifest shows them: with every setting, and readable as a recipe."""
        return {"name": self.name, "steps": [node.plain() for node in self.steps]}

    def draw(self, dice: Dice, hr: Size, lr: Size) -> Drawn:
        """The steps of one LR image with all of their parameters, which are plain JSON."""
        drawn: Drawn = []
        now = hr
        for step in _taken(self.steps, dice):
            parameters = STEPS[step.name].draw(step.values, dice, Sizes(now, hr, lr))
            drawn.append({"step": step.name, **parameters})
            now = _size_after(parameters, now)
        if now != lr:
            drawn.append({"step": _TO_LR, "size": list(lr), "interpolation": "area"})
        return drawn


def degraded(hr: Pixels, drawn: Iterable[Mapping[str, Any]]) -> Pixels:
    """LR of HR (H x W x 3 uint8): the steps one after the other on floats, rounded once at the end."""
    image: Image = hr.astype(np.float32)
    for parameters in drawn:
        image = STEPS[parameters["step"]].apply(image, {k: v for k, v in parameters.items() if k != "step"})
    return to_pixels(image)


def parse_steps(value: Any, where: str) -> Nodes:
    """The nodes of a YAML list. UsageError says what is wrong, and at which step."""
    if not isinstance(value, list):
        raise UsageError(f"{where}: expected a list of steps, e.g. `- blur: {{sigma: [0.2, 3]}}`, not {_short(value)}")
    return tuple(_parse_node(item, f"{where}: step {number}") for number, item in enumerate(value, 1))


def _taken(nodes: Sequence[Node], dice: Dice) -> Iterator[TakeStep]:
    for node in nodes:
        if isinstance(node, OneOf):
            yield from _taken(node.branches[dice.index(node.weights)], dice)
        elif isinstance(node, Shuffle):
            yield from _to_lr_last(list(_taken(dice.shuffled(node.nodes), dice)))
        elif node.probability == 1 or dice.chance(node.probability):
            yield node


def _to_lr_last(steps: list[TakeStep]) -> list[TakeStep]:
    """A `to_lr` that came before the last `resize` changes places with it: nothing shrinks below LR size."""
    places = [place for place, step in enumerate(steps) if step.name in (_TO_LR, _RESIZE)]
    sized = sorted((steps[place] for place in places), key=lambda step: step.name == _TO_LR)
    for place, step in zip(places, sized, strict=True):
        steps[place] = step
    return steps


def _size_after(parameters: Parameters, now: Size) -> Size:
    if "size" in parameters and isinstance(parameters["size"], list):
        height, width = parameters["size"]
        return height, width
    return now


def _parse_node(item: Any, where: str) -> Node:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise UsageError(f"{where}: expected one step, e.g. `jpeg: {{quality: [30, 95]}}`, not {_short(item)}")
    name, settings = next(iter(item.items()))
    require_known(str(name), (*STEPS, _ONE_OF, _SHUFFLE), where)
    where = f"{where} ({name})"
    if name == _ONE_OF:
        return _parse_one_of(settings, where)
    if name == _SHUFFLE:
        return Shuffle(parse_steps(settings, where))
    return _parse_step(str(name), {} if settings is None else settings, where)


def _parse_one_of(branches: Any, where: str) -> OneOf:
    if not isinstance(branches, list) or not branches:
        raise UsageError(f"{where}: expected a list of `{{weight: 0.5, steps: [...]}}`, not {_short(branches)}")
    weights, parsed = [], []
    for number, branch in enumerate(branches, 1):
        at = f"{where}: branch {number}"
        if not isinstance(branch, dict):
            raise UsageError(f"{at}: expected `{{weight: 0.5, steps: [...]}}`, not {_short(branch)}")
        for key in branch:
            require_known(str(key), ("weight", "steps"), at)
        weights.append(read_weight(branch.get("weight", 1.0), at))
        parsed.append(parse_steps(branch.get("steps"), at))
    require_some_weight(weights, where)
    return OneOf(tuple(weights), tuple(parsed))


def _parse_step(name: str, settings: Any, where: str) -> TakeStep:
    if not isinstance(settings, dict):
        raise UsageError(f"{where}: expected its settings, e.g. `{{probability: 0.5}}`, not {_short(settings)}")
    known = {**STEPS[name].settings, "probability": _PROBABILITY}
    for key in settings:
        require_known(str(key), known, where)
    values = {
        key: setting.read(settings[key], f"{where}: {key}") if key in settings else setting.default
        for key, setting in known.items()
    }
    return TakeStep(name, values, values.pop("probability"))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
