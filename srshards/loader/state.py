"""Where a `PatchLoader` is in its batches, as plain values, and whether a state is of the same batches."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_VERSION = 1
_MAX_STEP = 2**62


@dataclass(frozen=True)
class Batches:
    """All that decides which patches the steps have. `shards` is the fingerprint of the set."""

    shards: str
    decoded: bool
    patch_size: int
    input: str
    augment: bool
    seed: int
    patches_per_step: int  # of all processes
    patches_per_sample: int


@dataclass(frozen=True)
class Division:
    """How a step is divided, which matters where only a part of one has been taken."""

    micro_batches: int
    world_size: int


@dataclass(frozen=True)
class Position:
    """How many steps have been taken whole, and how many micro-batches of the next one."""

    step: int
    micro_batch: int = 0


def as_plain(position: Position, batches: Batches, division: Division) -> dict[str, int | str | bool]:
    """A flat dict of what JSON knows."""
    return {"version": _VERSION, **asdict(position), **asdict(batches), **asdict(division)}


def position_in(state: Mapping[str, Any], batches: Batches, division: Division) -> Position:
    """The position in what `as_plain` gave. ValueError when it is anything else, or of other batches than these."""
    here = as_plain(Position(0), batches, division)
    if not isinstance(state, Mapping) or any(type(state.get(name)) is not type(value) for name, value in here.items()):
        raise ValueError(f"expected what the state_dict() of a PatchLoader gave, found {state!r:.200}")
    if state["version"] != _VERSION:
        raise ValueError(f"this state has version {state['version']}, this program reads {_VERSION}")
    position = Position(state["step"], state["micro_batch"])
    if not (0 <= position.step < _MAX_STEP and 0 <= position.micro_batch < state["micro_batches"]):
        raise ValueError(f"no position of a PatchLoader: {position}")
    if differing := [name for name in asdict(batches) if state[name] != here[name]]:
        raise ValueError(f"this state is of other batches than this loader's: {_named(differing, state, here)}")
    divided = [name for name in asdict(division) if state[name] != here[name]]
    if position.micro_batch and divided:
        raise ValueError(
            f"this state is of the middle of a step, which was divided otherwise: {_named(divided, state, here)}; save "
            "it between steps"
        )
    return position


def _named(names: list[str], state: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    return ", ".join(
        "other `shards`" if name == "shards" else f"`{name}` {state[name]}, not {here[name]}" for name in names
    )
