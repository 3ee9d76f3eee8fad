"""Settings of a recipe's steps: ranges, choices and probabilities, validated when the recipe is read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol

from shardgen.degradation.rng import KeyedRng
from srshards.errors import UsageError

_MAX_WEIGHT = 1e6


class Setting(Protocol):
    """A setting of a step. `default` is the value of an omitted setting, in the form that `read` returns."""

    @property
    def default(self) -> Any: ...

    @property
    def what(self) -> str:
        """Description with unit, for display."""

    def read(self, value: Any, where: str) -> Any:
        """Return a recipe's value in canonical form. UsageError, which begins with `where`, when it is invalid."""

    def draw(self, value: Any, rng: KeyedRng) -> Any:
        """Draw a parameter, a number or a name."""


@dataclass(frozen=True)
class Uniform:
    """A number drawn uniformly from `[low, high]`; a recipe may also give one fixed number."""

    default: tuple[float, float]
    what: str
    low: float
    high: float

    def read(self, value: Any, where: str) -> tuple[float, float]:
        ends = value if isinstance(value, (list, tuple)) else [value, value]
        if len(ends) != 2 or not all(is_number(end) and self.low <= end <= self.high for end in ends):
            raise UsageError(
                f"{where}: expected a number or [low, high] from {self.low:g} to {self.high:g}, found {value!r}"
            )
        _require_ascending(ends[0], ends[1], where)
        return float(ends[0]), float(ends[1])

    def draw(self, value: tuple[float, float], rng: KeyedRng) -> float:
        return rng.uniform(*value)


@dataclass(frozen=True)
class Integers:
    """An integer drawn uniformly from `[low, high]`, from the odd ones only if `odd`."""

    default: tuple[int, int]
    what: str
    low: int
    high: int
    odd: bool = False

    def read(self, value: Any, where: str) -> tuple[int, int]:
        ends = value if isinstance(value, (list, tuple)) else [value, value]
        if len(ends) != 2 or not all(map(self._is_valid, ends)):
            kind = "an odd integer or a range of odd integers" if self.odd else "an integer or a range of integers"
            raise UsageError(f"{where}: expected {kind} [low, high] from {self.low} to {self.high}, found {value!r}")
        _require_ascending(ends[0], ends[1], where)
        return ends[0], ends[1]

    def _is_valid(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high and (value % 2 == 1 or not self.odd)

    def draw(self, value: tuple[int, int], rng: KeyedRng) -> int:
        return rng.integer(*value, step=2 if self.odd else 1)


@dataclass(frozen=True)
class Categorical:
    """One of several names, by weight; a recipe gives `{name: weight}`, a list of equally likely names, or one name."""

    default: Mapping[str, float]
    what: str
    names: tuple[str, ...]

    def read(self, value: Any, where: str) -> dict[str, float]:
        named = [value] if isinstance(value, str) else value
        weights = dict.fromkeys(named, 1.0) if _is_list_of_names(named) else named
        if not isinstance(weights, dict) or not weights:
            raise UsageError(f"{where}: expected a name, a list of names or {{name: weight}}, found {value!r}")
        for name in weights:
            require_known(str(name), self.names, where)
        # In a fixed order, because the order in the recipe must not affect the draws.
        read = {name: read_weight(weights[name], f"{where}: {name}") for name in self.names if name in weights}
        require_some_weight(read.values(), where)
        return read

    def draw(self, value: Mapping[str, float], rng: KeyedRng) -> str:
        return rng.choice(value)

    def draw_added(self, value: Mapping[str, float], rng: KeyedRng) -> str:
        """Draw a name for a setting in `Step.added`.

        A single name takes no random number, so that all other parameters stay those of recipes without the setting.
        """
        (only, *others) = value
        return rng.choice(value) if others else only


@dataclass(frozen=True)
class Chance:
    """True with the given probability."""

    default: float
    what: str

    def read(self, value: Any, where: str) -> float:
        if not is_number(value) or not 0 <= value <= 1:
            raise UsageError(f"{where}: expected a probability from 0 to 1, found {value!r}")
        return float(value)

    def draw(self, value: float, rng: KeyedRng) -> bool:
        return rng.chance(value)


def read_weight(value: Any, where: str) -> float:
    """Return a weight as a float. UsageError when it is not a number from 0 to 1e6."""
    if not is_number(value) or not 0 <= value <= _MAX_WEIGHT:
        raise UsageError(f"{where}: expected a weight from 0 to {_MAX_WEIGHT:,.0f}, found {value!r}")
    return float(value)


def require_some_weight(weights: Iterable[float], where: str) -> None:
    """Raise UsageError, which begins with `where`, unless a weight is above 0."""
    if not sum(weights) > 0:
        raise UsageError(f"{where}: expected at least one weight above 0")


def _require_ascending(low: float, high: float, where: str) -> None:
    if low > high:
        raise UsageError(f"{where}: the low end {low} is above the high end {high}; write [{high}, {low}]")


def is_number(value: object) -> bool:
    """Return whether the value is a finite number; booleans are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def require_known(name: str, known: Mapping[str, Any] | tuple[str, ...], where: str, or_else: str = "") -> None:
    """Raise UsageError, with the closest known name, if `name` is unknown. `or_else` is what else is accepted."""
    if name not in known:
        near = get_close_matches(name, list(known), 1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}{or_else}"
        raise UsageError(f"{where}: unknown name {name!r}; {hint}")


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
