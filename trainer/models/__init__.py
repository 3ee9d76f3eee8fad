"""The networks, by name."""

from srshards.errors import UsageError
from trainer.models import compact, rrdb  # noqa: F401 - registers both architectures
from trainer.models.blocks import NAMED, Network, NetworkSpec, num_parameters

__all__ = ["MODELS", "Network", "NetworkSpec", "network_spec", "num_parameters"]

MODELS = tuple(NAMED)


def network_spec(name: str, scale: int) -> NetworkSpec:
    """Return the spec of the network `name`, one of MODELS, for a scale. UsageError if there is none."""
    if name not in NAMED:
        raise UsageError(f"unknown model {name!r}; expected one of {', '.join(MODELS)}")
    architecture, features, depth, growth = NAMED[name]
    return NetworkSpec(architecture, scale, features, depth, growth)
