"""What a step of a recipe can be told: ranges and probabilities, checked when the recipe is read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol

from shardgen.degradation.rng import Dice
from srshards.errors import UsageError

_MAX_WEIGHT = 1e6


class Setting(Protocol):
    """A key of a step. `default` is what it means to leave it out, in the form that `read` gives."""

    @property
    def default(self) -> Any: ...

    @property
    def what(self) -> str:
        """What it is, with its unit, for people."""

    def read(self, value: Any, where: str) -> Any:
        """The value of a recipe in its plain form. UsageError, which begins with `where`, when it cannot be."""

    def draw(self, value: Any, dice: Dice) -> Any:
        """A parameter, as it is written down: a number or a name."""


@dataclass(frozen=True)
class Uniform:
    """A number drawn evenly from `[low, high]`; a recipe may also fix it with one number."""

    default: tuple[float, float]
    what: str
    low: float
    high: float

    def read(self, value: Any, where: str) -> tuple[float, float]:
        ends = value if isinstance(value, (list, tuple)) else [value, value]
        if len(ends) != 2 or not all(is_number(end) and self.low <= end <= self.high for end in ends):
            raise UsageError(
                f"{where}: expected a number or [low, high] from {self.low:g} to {self.high:g}, got {value!r}"
            )
        _require_ascending(*ends, where)
        return float(ends[0]), float(ends[1])

    def draw(self, value: tuple[float, float], dice: Dice) -> float:
        return dice.uniform(*value)


@dataclass(frozen=True)
class Integers:
    """A whole number drawn evenly from `[low, high]`, only from the odd ones if `odd`."""

    default: tuple[int, int]
    what: str
    low: int
    high: int
    odd: bool = False

    def read(self, value: Any, where: str) -> tuple[int, int]:
        ends = value if isinstance(value, (list, tuple)) else [value, value]
        if len(ends) != 2 or not all(map(self._is_valid, ends)):
            kind = "an odd integer or a range of odd integers" if self.odd else "an integer or a range of integers"
            raise UsageError(f"{where}: expected {kind} [low, high] from {self.low} to {self.high}, got {value!r}")
        _require_ascending(*ends, where)
        return ends[0], ends[1]

    def _is_valid(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high and (value % 2 == 1 or not self.odd)

    def draw(self, value: tuple[int, int], dice: Dice) -> int:
        return dice.integer(*value, step=2 if self.odd else 1)


@dataclass(frozen=True)
class Categorical:
    """One of some names, by weight; a recipe gives `{name: weight}`, a list of equally likely names, or one name."""

    default: Mapping[str, float]
    what: str
    names: tuple[str, ...]

    def read(self, value: Any, where: str) -> dict[str, float]:
        named = [value] if isinstance(value, str) else value
        weights = dict.fromkeys(named, 1.0) if _is_list_of_names(named) else named
        if not isinstance(weights, dict) or not weights:
            raise UsageError(f"{where}: expected a name, a list of names or {{name: weight}}, not {value!r}")
        for name in weights:
            require_known(str(name), self.names, where)
        # In an order of our own: that of the recipe must not decide what is drawn.
        read = {name: read_weight(weights[name], f"{where}: {name}") for name in self.names if name in weights}
        require_some_weight(read.values(), where)
        return read

    def draw(self, value: Mapping[str, float], dice: Dice) -> str:
        return dice.choice(value)


@dataclass(frozen=True)
class Chance:
    """Yes or no, with this probability."""

    default: float
    what: str

    def read(self, value: Any, where: str) -> float:
        if not is_number(value) or not 0 <= value <= 1:
            raise UsageError(f"{where}: expected a probability from 0 to 1, not {value!r}")
        return float(value)

    def draw(self, value: float, dice: Dice) -> bool:
        return dice.chance(value)


def read_weight(value: Any, where: str) -> float:
    """A weight of a recipe. UsageError when it is none."""
    if not is_number(value) or not 0 <= value <= _MAX_WEIGHT:
        raise UsageError(f"{where}: expected a weight of 0 or more, not {value!r}")
    return float(value)


def require_some_weight(weights: Iterable[float], where: str) -> None:
    if not sum(weights) > 0:
        raise UsageError(f"{where}: one of the weights has to be above 0")


def _require_ascending(low: float, high: float, where: str) -> None:
    if low > high:
        raise UsageError(f"{where}: the low end {low} is above the high end {high}; write [{high}, {low}]")


def is_number(value: object) -> bool:
    """A finite number; YAML's `yes` and `no` are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def require_known(name: str, known: Mapping[str, Any] | tuple[str, ...], where: str) -> None:
    """UsageError with the nearest right name when it is none of those that are known."""
    if name not in known:
        near = get_close_matches(name, list(known), 1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "expected one of " + ", ".join(known)
        raise UsageError(f"{where}: there is no {name!r}; {hint}")


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
