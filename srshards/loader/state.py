"""The state of a `PatchLoader` as plain values, and the check that a state belongs to the same batches."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_VERSION = 1
_MAX_STEP = 2**62


@dataclass(frozen=True)
class BatchSettings:
    """The settings that determine the patches of each step. `shards` is the fingerprint of the shards."""

    shards: str
    decoded: bool
    patch_size: int
    input: str
    augment: bool
    seed: int
    patches_per_step: int  # summed over all processes
    patches_per_sample: int


@dataclass(frozen=True)
class Division:
    """How a step is divided into batches, which matters when a state is from the middle of a step."""

    micro_batches: int
    world_size: int


@dataclass(frozen=True)
class Position:
    """A position in the sequence of batches: completed steps, and micro-batches taken from the next step."""

    step: int
    micro_batch: int = 0


def dump_state(position: Position, batches: BatchSettings, division: Division) -> dict[str, int | str | bool]:
    """Return the state as a flat dict of JSON-compatible values."""
    return {"version": _VERSION, **asdict(position), **asdict(batches), **asdict(division)}


def load_position(state: Mapping[str, Any], batches: BatchSettings, division: Division) -> Position:
    """Return the position in a state from `dump_state`. ValueError if it is invalid or for different batches."""
    expected = dump_state(Position(0), batches, division)
    if not isinstance(state, Mapping) or any(
        type(state.get(name)) is not type(value) for name, value in expected.items()
    ):
        raise ValueError(f"expected the state_dict() of a PatchLoader, found {state!r:.200}")
    if state["version"] != _VERSION:
        raise ValueError(f"expected a state of version {_VERSION}, found version {state['version']}")
    position = Position(state["step"], state["micro_batch"])
    if not (0 <= position.step < _MAX_STEP and 0 <= position.micro_batch < state["micro_batches"]):
        raise ValueError(f"not a valid position of a PatchLoader: {position}")
    if differing := [name for name in asdict(batches) if state[name] != expected[name]]:
        raise ValueError(f"this state is for different batches: {_differences(differing, state, expected)}")
    divided = [name for name in asdict(division) if state[name] != expected[name]]
    if position.micro_batch and divided:
        raise ValueError(
            "this state is from the middle of a step that was divided differently: "
            f"{_differences(divided, state, expected)}; save it between steps"
        )
    return position


def _differences(names: list[str], state: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    return ", ".join(
        "different `shards`" if name == "shards" else f"`{name}` {state[name]}, not {expected[name]}" for name in names
    )
