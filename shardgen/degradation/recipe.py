"""Recipes: lists of steps read from YAML, whose parameters are drawn per LR image and then applied.

    - blur: {sigma: [0.2, 3]}                        a step, with the settings that differ from its defaults
    - jpeg: {quality: [30, 95], probability: 0.5}    any step can have a probability
    - one_of:                                        one branch, by weight; it may be empty
        - {weight: 0.8, steps: [{gaussian_noise: {sigma: [1, 30]}}]}
        - {weight: 0.2, steps: []}
    - shuffle: [blur, resize, to_lr, jpeg]           in random order, but `to_lr` after every `resize`

An image that does not have LR size after the last step is resized to it by area averaging.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from shardgen.degradation.rng import KeyedRng
from shardgen.degradation.settings import Chance, read_weight, require_known, require_some_weight
from shardgen.degradation.step import Image, Parameters, Size, Sizes
from shardgen.degradation.steps import STEPS
from srshards.errors import UsageError
from srshards.imaging.pixels import Pixels, to_pixels

_PROBABILITY = Chance(1.0, "probability of the step")
_ONE_OF, _SHUFFLE = "one_of", "shuffle"
_TO_LR, _RESIZE = "to_lr", "resize"

DrawnSteps = list[Parameters]  # the steps of one LR image: the name of each as `step`, and its parameters


class UnknownStepError(Exception):
    """A recorded step that this version does not have. The message names it and says what to do."""


@dataclass(frozen=True)
class StepNode:
    """A step; `values` are all of its settings."""

    name: str
    values: Mapping[str, Any]
    probability: float

    def plain(self) -> dict[str, Any]:
        probability = {} if self.probability == 1 else {"probability": self.probability}
        return {self.name: {**STEPS[self.name].plain(self.values), **probability}}


@dataclass(frozen=True)
class OneOf:
    """One of several branches, by weight."""

    weights: tuple[float, ...]
    branches: tuple["Nodes", ...]

    def plain(self) -> dict[str, Any]:
        pairs = zip(self.weights, self.branches, strict=True)
        return {_ONE_OF: [{"weight": weight, "steps": [node.plain() for node in branch]} for weight, branch in pairs]}


@dataclass(frozen=True)
class Shuffle:
    """All of its nodes, in random order."""

    nodes: "Nodes"

    def plain(self) -> dict[str, Any]:
        return {_SHUFFLE: [node.plain() for node in self.nodes]}


Node = StepNode | OneOf | Shuffle
Nodes = tuple[Node, ...]


@dataclass(frozen=True)
class Recipe:
    """The degradation of HR to LR. `name` is only for display."""

    name: str
    steps: Nodes

    @cached_property
    def plain(self) -> dict[str, Any]:
        """Name and steps as JSON for the manifest, with all settings; `steps` is itself a valid recipe."""
        return {"name": self.name, "steps": [node.plain() for node in self.steps]}

    def draw(self, rng: KeyedRng, hr: Size, lr: Size) -> DrawnSteps:
        """Draw the steps of one LR image with all parameters, as JSON. Sizes are (height, width) in px."""
        drawn: DrawnSteps = []
        size = hr
        for step in _draw_steps(self.steps, rng):
            parameters = STEPS[step.name].draw(step.values, rng, Sizes(size, hr, lr))
            drawn.append({"step": step.name, **parameters})
            size = _size_after(parameters, size)
        if size != lr:
            drawn.append({"step": _TO_LR, "size": list(lr), "interpolation": "area"})
        return drawn


def degraded(hr: Pixels, drawn: Iterable[Mapping[str, Any]]) -> Pixels:
    """Return LR: HR (H x W x 3 uint8) after all steps, computed in float32 and rounded once at the end.

    UnknownStepError for a step that is not one of `STEPS`, as a later version may have recorded.
    """
    image: Image = hr.astype(np.float32)
    for parameters in drawn:
        name = parameters["step"]
        if name not in STEPS:
            raise UnknownStepError(f"the step {name!r}, which this version does not know; update sr-shards")
        image = STEPS[name].apply(image, {k: v for k, v in parameters.items() if k != "step"})
    return to_pixels(image)


def parse_steps(value: Any, where: str) -> Nodes:
    """Return the nodes of a YAML list. UsageError, which begins with `where` and the step, when it is invalid."""
    if not isinstance(value, list):
        raise UsageError(
            f"{where}: expected a list of steps, e.g. `- blur: {{sigma: [0.2, 3]}}`, found {_short(value)}"
        )
    return tuple(_parse_node(item, f"{where}: step {number}") for number, item in enumerate(value, 1))


def _draw_steps(nodes: Sequence[Node], rng: KeyedRng) -> Iterator[StepNode]:
    for node in nodes:
        if isinstance(node, OneOf):
            yield from _draw_steps(node.branches[rng.index(node.weights)], rng)
        elif isinstance(node, Shuffle):
            yield from _to_lr_last(list(_draw_steps(rng.shuffled(node.nodes), rng)))
        elif node.probability == 1 or rng.chance(node.probability):
            yield node


def _to_lr_last(steps: list[StepNode]) -> list[StepNode]:
    """Reorder only `to_lr` and `resize` so that `to_lr` is last: nothing is resized after it has LR size."""
    positions = [position for position, step in enumerate(steps) if step.name in (_TO_LR, _RESIZE)]
    resizing = sorted((steps[position] for position in positions), key=lambda step: step.name == _TO_LR)
    for position, step in zip(positions, resizing, strict=True):
        steps[position] = step
    return steps


def _size_after(parameters: Parameters, size: Size) -> Size:
    if "size" in parameters and isinstance(parameters["size"], list):
        height, width = parameters["size"]
        return height, width
    return size


def _parse_node(item: Any, where: str) -> Node:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise UsageError(f"{where}: expected one step, e.g. `jpeg: {{quality: [30, 95]}}`, found {_short(item)}")
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
        raise UsageError(f"{where}: expected a list of `{{weight: 0.5, steps: [...]}}`, found {_short(branches)}")
    weights, parsed = [], []
    for number, branch in enumerate(branches, 1):
        at = f"{where}: branch {number}"
        if not isinstance(branch, dict):
            raise UsageError(f"{at}: expected `{{weight: 0.5, steps: [...]}}`, found {_short(branch)}")
        for key in branch:
            require_known(str(key), ("weight", "steps"), at)
        weights.append(read_weight(branch.get("weight", 1.0), at))
        parsed.append(parse_steps(branch.get("steps"), at))
    require_some_weight(weights, where)
    return OneOf(tuple(weights), tuple(parsed))


def _parse_step(name: str, settings: Any, where: str) -> StepNode:
    if not isinstance(settings, dict):
        raise UsageError(f"{where}: expected its settings, e.g. `{{probability: 0.5}}`, found {_short(settings)}")
    known = {**STEPS[name].settings, "probability": _PROBABILITY}
    for key in settings:
        require_known(str(key), known, where)
    values = {
        key: setting.read(settings[key], f"{where}: {key}") if key in settings else setting.default
        for key, setting in known.items()
    }
    return StepNode(name, values, values.pop("probability"))


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
