"""The networks, by name."""

from collections.abc import Mapping
from typing import Any

from trainer.catalogue import named_network
from trainer.models import compact, rrdb  # noqa: F401 - registers both architectures
from trainer.models.blocks import BuiltInSpec, Network, NetworkSpec, num_parameters
from trainer.models.spandrel_network import scales_of, spandrel_spec

__all__ = [
    "BuiltInSpec",
    "Network",
    "NetworkSpec",
    "network_spec",
    "num_parameters",
    "spec_from_json",
    "supported_scales",
]


def network_spec(name: str, scale: int) -> NetworkSpec:
    """Return the spec of the network `name` of the catalogue for a scale.

    UsageError if there is none, for a scale that it does not support, and if it needs a package that is missing.
    """
    row = named_network(name)
    return _spec(row.architecture, scale, row.arguments)


def supported_scales(name: str) -> tuple[int, ...]:
    """Return the scales of the network `name` of the catalogue. UsageError if it needs a package that is missing."""
    row = named_network(name)
    own = Network.built_in.get(row.architecture)
    return own.scales if own else scales_of(row.architecture, row.arguments)


def spec_from_json(plain: Mapping[str, Any]) -> NetworkSpec:
    """Return the spec of which `NetworkSpec.as_json` returned this.

    UsageError if it has no training support or needs a package that is missing; KeyError, TypeError or ValueError if it
    is not such a description.
    """
    return _spec(str(plain["architecture"]), int(plain["scale"]), dict(plain["arguments"]))


def _spec(architecture: str, scale: int, arguments: Mapping[str, Any]) -> NetworkSpec:
    if architecture in Network.built_in:
        return BuiltInSpec(architecture, scale, **arguments)
    return spandrel_spec(architecture, scale, arguments)
