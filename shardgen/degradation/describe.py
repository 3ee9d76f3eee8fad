"""Recipes and what was drawn from them, in words for people."""

from collections.abc import Iterable, Mapping
from typing import Any


def in_words(drawn: Mapping[str, Any]) -> str:
    """One drawn step on one line, e.g. `blur  isotropic, size 13, sigma 1.21` or `resize  244 x 244, area`."""
    parts = []
    for name, value in drawn.items():
        if name not in ("step", "seed"):
            speaks_for_itself = isinstance(value, str) or (name == "size" and isinstance(value, list))
            parts.append(_value(value) if speaks_for_itself else f"{name} {_value(value)}")
    return f"{drawn['step']}  {', '.join(parts)}"


def summary(steps: Iterable[Mapping[str, Any]]) -> str:
    """The names of a recipe's steps, in its order: `blur, resize, (gaussian_noise | poisson_noise), jpeg`."""
    return ", ".join(_node(node) for node in steps)


def _node(node: Mapping[str, Any]) -> str:
    (name, settings), *_ = node.items()
    if name == "shuffle":
        return f"in any order ({summary(settings)})"
    if name == "one_of":
        return f"({' | '.join(summary(branch['steps']) or 'nothing' for branch in settings)})"
    return str(name)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(_value(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
