"""The networks: which there are, and how to build one."""

from srshards.errors import UsageError
from trainer.models import compact, rrdb  # noqa: F401 - makes both architectures known
from trainer.models.blocks import NAMED, Network, NetworkSpec, num_parameters

__all__ = ["MODELS", "Network", "NetworkSpec", "network_spec", "num_parameters"]

MODELS = tuple(NAMED)


def network_spec(name: str, scale: int) -> NetworkSpec:
    """The network called `name`, one of MODELS, that enlarges `scale` times."""
    if name not in NAMED:
        raise UsageError(f"there is no model {name!r}: choose one of {', '.join(MODELS)}")
    architecture, features, depth, growth = NAMED[name]
    return NetworkSpec(architecture, scale, features, depth, growth)
