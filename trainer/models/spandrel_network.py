"""Networks of the architectures that spandrel carries, as `Network`s."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from srshards.errors import UsageError
from trainer.catalogue import NETWORKS
from trainer.models.architectures import ARCHITECTURES, PRACTICAL_MARGIN
from trainer.models.blocks import Network, NetworkSpec, pad_to
from trainer.models.spandrel_import import load_spandrel

Call: TypeAlias = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class SpandrelSpec(NetworkSpec):
    """Spec of a network of spandrel. `architecture` is the name of its class, `arguments` are those of the constructor.

    Made by `spandrel_spec`, with all arguments, so that the specs of a file and of the catalogue are equal.
    """

    arguments: tuple[tuple[str, Any], ...]  # by name, sorted; lists as tuples
    multiple_px: int = 1
    margin_px: int = PRACTICAL_MARGIN

    @property
    def name(self) -> str:
        """The name in the catalogue, or the architecture with the arguments that are not its defaults."""
        rows = (row for row in NETWORKS.values() if row.architecture == self.architecture)
        return next((row.name for row in rows if _spec_of_row(row.name, self.scale) == self), self._description())

    def _description(self) -> str:
        defaults = _defaults(self.architecture)
        given = (f"{name} {value}" for name, value in self.arguments if defaults.get(name) != value)
        return f"{self.architecture} ({', '.join(given)})"

    def build(self, seed: int = 0) -> "SpandrelNetwork":
        """Return the network on the CPU, float32, in training mode, initialised by its own constructor.

        Equal seeds give equal parameters. PyTorch's global generator is not changed.
        """
        arguments = {name: _as_lists(value) for name, value in self.arguments}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            inner = network_class(self.architecture)(**arguments)
        return SpandrelNetwork(self, inner.float().train())

    def shapes(self) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in self.build().state_dict().items()}

    def as_json(self) -> dict[str, Any]:
        arguments = {name: _as_lists(value) for name, value in self.arguments}
        return {"architecture": self.architecture, "scale": self.scale, "arguments": arguments}


class SpandrelNetwork(Network):
    """A network of spandrel. Its state dict is that of spandrel's module: no prefix is added to the names."""

    def __init__(self, spec: SpandrelSpec, inner: nn.Module, call: Call | None = None) -> None:
        super().__init__(spec)
        self.inner = inner
        self._call = call

    def forward(self, images: Tensor) -> Tensor:
        multiple = self.spec.multiple_px
        height, width = images.shape[2:]
        padded = images
        if multiple > 1:
            padded = pad_to(images, *(-(-size // multiple) * multiple for size in (height, width)))
        output: Tensor = self._call(self.inner, padded) if self._call else self.inner(padded)
        return output[:, :, : self.scale * height, : self.scale * width] if multiple > 1 else output

    def state_dict(self, *args: Any, **options: Any) -> Any:
        return self.inner.state_dict(*args, **options)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self.inner.load_state_dict(state, strict, assign)


def spandrel_spec(architecture: str, scale: int, arguments: Mapping[str, Any]) -> SpandrelSpec:
    """Return the spec of a class of spandrel with these arguments of the constructor; the others have their defaults.

    UsageError without spandrel, and for an architecture, an argument or a scale that it does not have.
    """
    known = ARCHITECTURES.get(architecture)
    if known is None:
        raise UsageError(
            f"{architecture} has no training support; supported are compact, rrdb, {', '.join(ARCHITECTURES)}"
        )
    if scale not in known.scales:
        supported = ", ".join(f"{scale}x" for scale in known.scales)
        raise UsageError(f"{architecture} does not support {scale}x, only {supported}")
    return _complete(architecture, scale, {**arguments, known.scale_argument: scale})


def _complete(architecture: str, scale: int, arguments: Mapping[str, Any]) -> SpandrelSpec:
    defaults = _defaults(architecture)
    values = {name: arguments.get(name, default) for name, default in defaults.items()}
    values |= arguments
    plain = {name: _hashable(value) for name, value in values.items() if _is_plain(value)}
    # Without dropout and stochastic depth, which draw from PyTorch's global generator: a resumed run would differ.
    plain |= {name: 0.0 for name in plain if name.startswith(("drop", "attn_drop"))}
    known = ARCHITECTURES.get(architecture)
    sizes = {} if known is None else {"multiple_px": known.multiple_px(plain), "margin_px": known.margin_px(plain)}
    return SpandrelSpec(architecture, scale, tuple(sorted(plain.items())), **sizes)


def _spec_of_row(name: str, scale: int) -> SpandrelSpec:
    row = NETWORKS[name]
    return spandrel_spec(row.architecture, scale, row.arguments)


def network_class(architecture: str) -> Callable[..., nn.Module]:
    """Return the class of spandrel of that name. UsageError if there is none."""
    spandrel = load_spandrel()
    for support in spandrel.MAIN_REGISTRY:
        module = getattr(spandrel.architectures, support.architecture.id)
        if architecture in module.__all__ and not architecture.endswith("Arch"):
            found: Callable[..., nn.Module] = getattr(module, architecture)
            return found
    raise UsageError(f"spandrel {spandrel.__version__} has no architecture {architecture!r}; install a newer version")


def _defaults(architecture: str) -> dict[str, Any]:
    """Return the default arguments of a class of spandrel, those without one as None."""
    parameters = inspect.signature(network_class(architecture)).parameters
    empty = inspect.Parameter.empty
    return {name: None if p.default is empty else _hashable(p.default) for name, p in parameters.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, tuple | list) else value


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value


def open_network(state: Mapping[str, Tensor]) -> SpandrelNetwork | None:
    """Return the network that spandrel finds in these weights, with them loaded; None if it knows none.

    UsageError without spandrel, for damaged weights, and for networks that do not map RGB to RGB.
    """
    registry = load_spandrel().MAIN_REGISTRY
    support = next((one for one in registry.architectures("detection") if one.architecture.detect(dict(state))), None)
    if support is None:
        return None
    descriptor = support.architecture.load(dict(state))
    model = descriptor.model
    spec = _complete(type(model).__name__, descriptor.scale, model.hyperparameters)
    return SpandrelNetwork(spec, model, descriptor._call_fn)
