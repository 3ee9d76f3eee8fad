"""Networks of spandrel's architectures, as `Network`s."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from srshards.errors import UsageError
from trainer.catalogue import NETWORKS
from trainer.models import reparameterised
from trainer.models.architectures import ANY_SIZE, ARCHITECTURES, PRACTICAL_MARGIN, Architecture, SizeRequirements
from trainer.models.blocks import Network, NetworkSpec, next_multiple, pad_to, without_autocast
from trainer.models.spandrel_import import load_spandrel
from trainer.models.uninitialised import UninitialisedParameters

# Of architectures without training support, some of which pad images to multiples that they do not state, as SCUNet
# does to 64 px: docs/decisions/037-any-network-in-tiles-and-onnx.md.
_USUAL_MULTIPLE = 64

Call: TypeAlias = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class SpandrelSpec(NetworkSpec):
    """Spec of a network of spandrel: the name of its class, or of its architecture if that has no training support.

    Made by `spandrel_spec` or `spec_of_model`, with all arguments of the constructor, so that the specs of equal
    networks are equal, whether they come from the catalogue or a file.
    """

    arguments: tuple[tuple[str, Any], ...]  # by name, sorted; lists as tuples
    margin_px: int = PRACTICAL_MARGIN
    multiple_px: int = 1
    needs: SizeRequirements = ANY_SIZE

    @property
    def name(self) -> str:
        """The name in the catalogue, or that of the architecture; if it is trainable, with its unusual arguments."""
        if self.architecture not in ARCHITECTURES:
            return self.architecture
        size = _without_scale(self.architecture, dict(self.arguments))
        for row in NETWORKS.values():
            if row.architecture == self.architecture and size == _without_scale(row.architecture, row.arguments):
                return row.name
        defaults = _without_scale(self.architecture, {})
        given = ", ".join(f"{name} {value}" for name, value in size.items() if defaults[name] != value)
        return f"{self.architecture} ({given})" if given else self.architecture

    @property
    def min_batch(self) -> int:
        return _known(self.architecture).min_batch

    def build(self, seed: int = 0) -> "SpandrelNetwork":
        """Return the network on the CPU, float32, in training mode, initialised by its own constructor.

        Equal seeds give equal parameters. PyTorch's global generator is not changed. UsageError if the architecture
        has no training support.
        """
        _known(self.architecture)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for developers of spandrel
            torch.default_generator.manual_seed(seed)
            inner = network_class(self.architecture)(**self._plain_arguments())
        return SpandrelNetwork(self, inner.train())

    def shapes(self) -> dict[str, torch.Size]:
        with UninitialisedParameters():
            inner = self.build().inner
        return {name: tensor.shape for name, tensor in inner.state_dict().items()}

    def as_json(self) -> dict[str, Any]:
        return {"architecture": self.architecture, "scale": self.scale, "arguments": self._plain_arguments()}

    def _plain_arguments(self) -> dict[str, Any]:
        return {name: _as_lists(value) for name, value in self.arguments}


class SpandrelNetwork(Network):
    """A network of spandrel. Its state dict is that of spandrel's module: no prefix is added to the names.

    `call` applies the module to images if that takes more than calling it.
    """

    spec: SpandrelSpec

    def __init__(self, spec: SpandrelSpec, inner: nn.Module, call: Call | None = None) -> None:
        super().__init__(spec)
        self.inner = inner
        self._call = call
        reparameterised.prepare(inner)
        _use_float32_for_pixels(inner)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        is_padded = self.spec.needs != ANY_SIZE
        # Some networks change their input in place. `pad_to` copies.
        padded = pad_to(images, *_accepted(height, width, self.spec.needs)) if is_padded else images.clone()
        output: Tensor = self._call(self.inner, padded) if self._call else self.inner(padded)
        return output[:, :, : self.scale * height, : self.scale * width] if is_padded else output

    def train(self, mode: bool = True) -> "SpandrelNetwork":
        super().train(mode)
        if not mode:
            reparameterised.fuse(self.inner)
        return self

    def state_dict(self, *args: Any, **options: Any) -> Any:
        reparameterised.fuse(self.inner)
        return self.inner.state_dict(*args, **options)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self.inner.load_state_dict(state, strict, assign)


class _PixelConv2d(nn.Conv2d):
    """Convolution in float32, also under autocast: bfloat16 pixels would be 1/256 apart."""

    def forward(self, features: Tensor) -> Tensor:
        with without_autocast(features):
            return super().forward(features.to(self.weight.dtype))


def _use_float32_for_pixels(inner: nn.Module) -> None:
    """Let the network's last convolution, the one that gives pixels, run in float32."""
    convolutions = [
        module
        for name, module in inner.named_modules()
        if type(module) is nn.Conv2d and not name.endswith((".offset", ".scope"))  # coordinates, of DySample
    ]
    if convolutions:
        convolutions[-1].__class__ = _PixelConv2d


def _accepted(height: int, width: int, needs: SizeRequirements) -> tuple[int, int]:
    """Return the smallest height and width that are large enough and meet the requirements."""
    multiple = needs.multiple_px
    height, width = (next_multiple(max(size, needs.minimum_px), multiple) for size in (height, width))
    return (max(height, width),) * 2 if needs.is_square else (height, width)


def spandrel_spec(architecture: str, scale: int, arguments: Mapping[str, Any]) -> SpandrelSpec:
    """Return the spec of a class of spandrel with these arguments of the constructor; the others have their defaults.

    UsageError without spandrel, and for an architecture without training support, an argument or a scale that it does
    not have. ValueError if the arguments contain another scale.
    """
    known = _known(architecture)
    values = {known.scale_argument: scale, **arguments}
    unknown = values.keys() - _defaults(architecture).keys()
    if unknown:
        names = ", ".join(_defaults(architecture))
        raise UsageError(f"{architecture} has no {', '.join(sorted(unknown))}; its arguments are {names}")
    scales = scales_of(architecture, values)
    if not scales:
        raise UsageError(f"{architecture} with these arguments has no training support: spandrel misreads its file")
    if scale not in scales:
        supported = ", ".join(f"{scale}x" for scale in scales)
        raise UsageError(f"{architecture} does not support {scale}x, only {supported}")
    if values[known.scale_argument] != scale:
        raise ValueError(f"{architecture} at {scale}x has {known.scale_argument} {values[known.scale_argument]}")
    return _with_sizes(architecture, known, scale, values)


def scales_of(architecture: str, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the scales that an architecture supports with these arguments. UsageError without spandrel."""
    return _known(architecture).scales(_complete(architecture, arguments))


def spec_of_model(model: nn.Module, architecture: str, scale: int, needs: SizeRequirements) -> SpandrelSpec:
    """Return the spec of a network that spandrel opened; `architecture` is its name for those without training support.

    Equal to that of `spandrel_spec` for equal networks.
    """
    arguments: Mapping[str, Any] = model.hyperparameters  # type: ignore[assignment]  # all of them
    name = type(model).__name__
    if name in ARCHITECTURES:
        return _with_sizes(name, ARCHITECTURES[name], scale, arguments)
    plain = tuple(sorted((key, _hashable(value)) for key, value in arguments.items() if _is_plain(value)))
    multiple_px = math.lcm(needs.multiple_px, _USUAL_MULTIPLE)
    margin_px = next_multiple(PRACTICAL_MARGIN, multiple_px)
    return SpandrelSpec(architecture, scale, plain, margin_px, multiple_px, needs)


def _with_sizes(architecture: str, known: Architecture, scale: int, arguments: Mapping[str, Any]) -> SpandrelSpec:
    complete = _complete(architecture, arguments)
    sizes = (known.margin_px(complete), known.multiple_px(complete), known.needs)
    return SpandrelSpec(architecture, scale, tuple(sorted(complete.items())), *sizes)


def network_class(architecture: str) -> Callable[..., nn.Module]:
    """Return the class of spandrel of that name. UsageError if there is none."""
    spandrel = load_spandrel()
    for support in spandrel.MAIN_REGISTRY:
        module = getattr(spandrel.architectures, support.architecture.id)
        if architecture in module.__all__ and not architecture.endswith("Arch"):
            found: Callable[..., nn.Module] = getattr(module, architecture)
            return found
    raise UsageError(f"the installed spandrel has no architecture {architecture!r}; install a newer version")


def _known(architecture: str) -> Architecture:
    known = ARCHITECTURES.get(architecture)
    if known is None:
        raise UsageError(
            f"{architecture} has no training support, only {', '.join(sorted((*Network.built_in, *ARCHITECTURES)))}; "
            "it can be evaluated, used to upscale and exported"
        )
    return known


def _complete(architecture: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments, by default those of the constructor, in a form that can be hashed.

    Without classes, such as that of a normalisation, whose default remains. Without dropout and stochastic depth: these
    draw from PyTorch's global generator, so that a resumed run would differ.
    """
    values = {**_defaults(architecture), **arguments}
    complete = {name: _hashable(value) for name, value in values.items() if _is_plain(value)}
    return {name: 0.0 if name.startswith(("drop", "attn_drop")) else value for name, value in complete.items()}


def _without_scale(architecture: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    scale = ARCHITECTURES[architecture].scale_argument
    return {name: value for name, value in _complete(architecture, arguments).items() if name != scale}


def _defaults(architecture: str) -> dict[str, Any]:
    """Return the defaults of the constructor's arguments, None for those without one."""
    parameters = inspect.signature(network_class(architecture)).parameters
    return {name: None if p.default is inspect.Parameter.empty else p.default for name, p in parameters.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, tuple | list) else value


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value
