"""Format recipes and drawn steps as text."""

from collections.abc import Iterable, Mapping
from typing import Any


def format_step(drawn: Mapping[str, Any]) -> str:
    """Format a drawn step as one line, e.g. `blur  isotropic, size 13, sigma 1.21` or `resize  244 x 244, area`."""
    parts = []
    for name, value in drawn.items():
        if name not in ("step", "seed"):
            needs_no_name = isinstance(value, str) or (name == "size" and isinstance(value, list))
            parts.append(_value(value) if needs_no_name else f"{name} {_value(value)}")
    return f"{drawn['step']}  {', '.join(parts)}"


def summary(steps: Iterable[Mapping[str, Any]]) -> str:
    """Format a recipe as its steps' names in order: `blur, resize, (gaussian_noise | poisson_noise), jpeg`."""
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
