"""Compare two recipes, to report why shards would be replaced."""

from collections.abc import Iterator, Mapping
from typing import Any

from shardgen.degradation.recipe import Node, Nodes, OneOf, Shuffle, StepNode, parse_steps
from srshards.errors import UsageError

_OTHER_STEPS = "other steps"


def recipe_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what differs between the steps of two recipes as in manifests, e.g. `jpeg: upsampling smooth -> plain`.

    The list is empty if both degrade equally; their names may differ.
    """
    try:
        nodes = tuple(parse_steps(recipe.get("steps"), "recipe") for recipe in (old, new))
    except UsageError:  # a manifest written by another release
        return [_OTHER_STEPS]
    return list(dict.fromkeys(_compare_all(*nodes)))


def _compare_all(old: Nodes, new: Nodes) -> Iterator[str]:
    if len(old) != len(new):
        yield _OTHER_STEPS
        return
    for one, other in zip(old, new, strict=True):
        yield from _compare(one, other)


def _compare(old: Node, new: Node) -> Iterator[str]:
    if isinstance(old, StepNode) and isinstance(new, StepNode) and old.name == new.name:
        settings = {"probability": (old.probability, new.probability)}
        settings |= {name: (old.values[name], new.values[name]) for name in new.values}
        for name, (before, after) in settings.items():
            if before != after:
                yield f"{new.name}: {name} {_formatted(before)} -> {_formatted(after)}"
    elif isinstance(old, OneOf) and isinstance(new, OneOf) and len(old.branches) == len(new.branches):
        if old.weights != new.weights:
            yield f"one_of: weights {_formatted(old.weights)} -> {_formatted(new.weights)}"
        for one, other in zip(old.branches, new.branches, strict=True):
            yield from _compare_all(one, other)
    elif isinstance(old, Shuffle) and isinstance(new, Shuffle):
        yield from _compare_all(old.nodes, new.nodes)
    else:
        yield _OTHER_STEPS


def _formatted(value: Any) -> str:
    """Format a setting as in a recipe: a range, a number, one name, or names with weights."""
    if isinstance(value, tuple):
        return f"[{', '.join(_formatted(item) for item in value)}]"
    if isinstance(value, dict):
        return next(iter(value)) if len(value) == 1 else f"{{{', '.join(f'{k}: {v:g}' for k, v in value.items())}}}"
    return f"{value:g}"
