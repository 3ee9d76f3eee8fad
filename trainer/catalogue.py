"""The networks that `--model` names: architecture, size, training settings and where these come from.

Does not import PyTorch, so that `--help` and completion stay fast.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from srshards.errors import UsageError
from srshards.terminal.text import did_you_mean

DEFAULT_EMA = 0.999


@dataclass(frozen=True)
class NamedNetwork:
    """A network by name, and the settings to train it from scratch with.

    `arguments` are `features`, `depth` and `growth` for the architectures "compact" and "rrdb", and the constructor's
    arguments for an architecture of spandrel, without those that give the scale. `lr` is the peak rate of AdamW at
    batches of 16, `ema` the EMA decay of the weights.
    """

    name: str
    architecture: str  # "compact", "rrdb" or the name of a class of spandrel; see trainer/models/architectures.py
    arguments: Mapping[str, Any]
    lr: float
    use: str  # what it is good for, in a few words
    source: str  # of the arguments and the rate
    ema: float = DEFAULT_EMA

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))


_RATES = "docs/decisions/027-initialisation-and-learning-rates.md"
_ROWS = (
    NamedNetwork("ultra_lite", "compact", {"features": 24, "depth": 8}, 4e-3, "short runs, training on a CPU", _RATES),
    NamedNetwork("lite", "compact", {"features": 64, "depth": 16}, 1e-3, "fast upscaling, also of video", _RATES),
    NamedNetwork(
        "standard", "rrdb", {"features": 64, "depth": 23, "growth": 32}, 2e-4, "quality, with a GPU (ESRGAN)", _RATES
    ),
    NamedNetwork(
        "span",
        "SPAN",
        {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 48},
        5e-4,
        "fast upscaling with attention",
        "SPAN (Wan et al., 2024): 48 channels, 5e-4",
    ),
    NamedNetwork(
        "plksr",
        "PLKSR",
        {"dim": 64, "n_blocks": 28, "kernel_size": 17, "split_ratio": 0.25, "ccm_type": "DCCM"},
        2e-4,
        "quality at moderate cost",
        "PLKSR (Lee et al., 2024): 64 channels, 28 blocks, 2e-4",
    ),
)
NETWORKS: dict[str, NamedNetwork] = {row.name: row for row in _ROWS}


def named_network(name: str) -> NamedNetwork:
    """Return the row of that name. UsageError with the nearest name if there is none."""
    if name not in NETWORKS:
        hint = did_you_mean(name, NETWORKS) or f"expected one of {', '.join(NETWORKS)}"
        raise UsageError(f"unknown model {name!r}; {hint}")
    return NETWORKS[name]


def typical_network(architecture: str) -> NamedNetwork | None:
    """Return the first row of an architecture, whose settings suit its other sizes; None if it has no row."""
    return next((row for row in NETWORKS.values() if row.architecture == architecture), None)
