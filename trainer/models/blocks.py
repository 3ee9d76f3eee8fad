"""Shared parts of the networks: specs, base class, initialisation, padding and pixel rearrangement."""

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from srshards.errors import UsageError
from trainer.catalogue import NETWORKS

COLOURS = 3
SLOPE = 0.2  # negative slope of LeakyReLU
PRELU_INIT = 0.25


@dataclass(frozen=True)
class NetworkSpec(ABC):
    """Everything needed to build a network except its parameters: hashable, comparable, and convertible to JSON."""

    architecture: str
    scale: int

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in the catalogue, e.g. `lite`, or a description such as `compact 48x12`."""

    @property
    @abstractmethod
    def margin_px(self) -> int:
        """How far to each side of an output pixel the network sees, in px of the input: the margin that a tile needs.

        The exact receptive field where that is small, otherwise a practical bound; a multiple of `multiple_px`.
        """

    @property
    @abstractmethod
    def multiple_px(self) -> int:
        """Height and width for which the network is meant are multiples of this, e.g. its window; 1 for most.

        Other sizes are padded. Tiles that start at multiples see the same windows as the whole image.
        """

    @property
    def min_batch(self) -> int:
        """Patches of the smallest batch that can be trained with, per process."""
        return 1

    @abstractmethod
    def build(self, seed: int = 0) -> "Network":
        """Return the network on the CPU, float32, in training mode. Equal seeds give equal parameters.

        PyTorch's global generator is not changed.
        """

    @abstractmethod
    def shapes(self) -> dict[str, torch.Size]:
        """Return the shape of every parameter and buffer by name, in layer order."""

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON, for `spec_from_json`."""


@dataclass(frozen=True)
class BuiltInSpec(NetworkSpec):
    """Spec of a network of this package. UsageError for an unsupported scale."""

    architecture: str  # a key of `Network.built_in`
    scale: int
    features: int  # channels between the layers
    depth: int  # compact: convolutions between the first and the last; rrdb: blocks
    growth: int | None = None  # rrdb: channels that each convolution of a dense block adds; compact has none

    def __post_init__(self) -> None:
        scales = Network.built_in[self.architecture].scales
        if self.scale not in scales:
            supported = ", ".join(f"{scale}x" for scale in scales)
            hint = "" if self.architecture == "compact" else "; ultra_lite and lite support 1x to 8x"
            raise UsageError(f"{self.name} does not support {self.scale}x, only {supported}{hint}")

    @property
    def name(self) -> str:
        """The name in the catalogue, e.g. `lite`, or a description such as `compact 48x12` (features x depth)."""
        arguments = self._arguments()
        growth = "" if self.growth is None else f", growth {self.growth}"
        fallback = f"{self.architecture} {self.features}x{self.depth}{growth}"
        rows = (row for row in NETWORKS.values() if row.architecture == self.architecture)
        return next((row.name for row in rows if row.arguments == arguments), fallback)

    @property
    def margin_px(self) -> int:
        """Exact for compact; a practical bound for rrdb, see `Rrdb.margin_px`."""
        return Network.built_in[self.architecture].margin_px(self)

    @property
    def multiple_px(self) -> int:
        return Network.built_in[self.architecture].multiple_px(self)

    def build(self, seed: int = 0) -> "Network":
        network = self._on_meta_device()
        # Not `to_empty`, which imports SymPy for the shapes of the meta device, for half a second.
        memory = {name: torch.empty(tensor.shape) for name, tensor in network.state_dict().items()}
        network.load_state_dict(memory, assign=True)
        initialise(network, torch.Generator().manual_seed(seed))
        return network

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shape of every parameter by name, in layer order, without allocating memory."""
        return {name: tensor.shape for name, tensor in self._on_meta_device().state_dict().items()}

    def as_json(self) -> dict[str, Any]:
        return {"architecture": self.architecture, "scale": self.scale, "arguments": self._arguments()}

    def _arguments(self) -> dict[str, int]:
        numbers = {"features": self.features, "depth": self.depth, "growth": self.growth}
        return {name: value for name, value in numbers.items() if value is not None}

    def _on_meta_device(self) -> "Network":
        with torch.device("meta"):  # elsewhere, the layers' own initialisation would use the global generator
            return Network.built_in[self.architecture](self)


class Network(nn.Module):
    """Maps N x 3 x H x W RGB in [0, 1] to N x 3 x scale·H x scale·W, not clamped, for any H and W from 1 px."""

    built_in: ClassVar[dict[str, type["Network"]]] = {}  # subclasses by `BuiltInSpec.architecture`
    scales: ClassVar[tuple[int, ...]]

    def __init_subclass__(cls, architecture: str | None = None) -> None:
        super().__init_subclass__()
        if architecture is not None:
            Network.built_in[architecture] = cls

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.scale = spec.scale

    @staticmethod
    def margin_px(spec: Any) -> int:
        """Return `BuiltInSpec.margin_px`."""
        raise NotImplementedError

    @staticmethod
    def multiple_px(spec: Any) -> int:
        """Return `BuiltInSpec.multiple_px`."""
        return 1

    def set_fixed_weights(self) -> None:
        """Set the parameters that are not drawn at random. Called under no_grad."""

    def gain(self, convolution: str) -> float:
        """Return the factor on the initial weights of the convolution of that name; see `initialise`."""
        raise NotImplementedError


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


@torch.no_grad()
def initialise(network: Network, generator: torch.Generator) -> None:
    """Initialise every parameter of `network` for training from scratch, drawing from `generator` in layer order.

    Convolutions: Kaiming normal over the fan-in, which preserves the variance through the activations; biases zero.
    `Network.gain` reduces this where a layer adds to a residual path: to a tenth for the convolutions of a dense block,
    whose residual sum then starts near the identity, and for the last convolution, so that compact starts near the
    interpolated input, and rrdb near black instead of at noise.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * math.prod(module.kernel_size)
            std = math.sqrt(2 / (1 + SLOPE**2) / fan_in) * network.gain(name)
            module.weight.normal_(0, std, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.PReLU):
            module.weight.fill_(PRELU_INIT)
    network.set_fixed_weights()


def upsample_nearest(images: Tensor, factor: int) -> Tensor:
    """Upsample N x C x H x W to N x C x factor·H x factor·W by repeating pixels. The dtype is kept under autocast."""
    if factor == 1:
        return images
    with without_autocast(images):  # which would convert to float32, although repeating pixels does no arithmetic
        return functional.interpolate(images, scale_factor=factor, mode="nearest")


def conv_to_pixels(convolution: nn.Conv2d, features: Tensor) -> Tensor:
    """Apply a network's last convolution in float32, also under autocast: bfloat16 pixels would be 1/256 apart."""
    with without_autocast(features):
        pixels: Tensor = convolution(features.to(convolution.weight.dtype))
        return pixels


def without_autocast(tensor: Tensor) -> AbstractContextManager[None]:
    """Return a context in which autocast is off. If it is off already, nothing is added to exported graphs."""
    kind = tensor.device.type
    is_on = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if is_on else nullcontext()


def leaky(features: Tensor) -> Tensor:
    """Apply LeakyReLU in place. Safe on the output of a convolution, whose gradient does not depend on that output."""
    # Tracing has to undo in-place operations: torch.export would take 43 instead of 19 s for `standard`.
    return functional.leaky_relu(features, SLOPE, inplace=not torch.compiler.is_compiling())


def pixel_unshuffle(images: Tensor, factor: int) -> Tensor:
    """Rearrange N x C x H x W to N x C·factor² x ⌈H / factor⌉ x ⌈W / factor⌉.

    Sizes that are not multiples of the factor are padded first, see `pad_to`.
    """
    height, width = (next_multiple(size, factor) for size in images.shape[2:])
    return functional.pixel_unshuffle(pad_to(images, height, width), factor)


def next_multiple(size: int, factor: int) -> int:
    """Round up to a multiple of the factor."""
    return (size + factor - 1) // factor * factor  # not -(-size // factor): ONNX divides towards zero


def pad_to(images: Tensor, height: int, width: int) -> Tensor:
    """Pad N x C x H x W to a greater or equal height and width, by reflection at the bottom and on the right.

    Where an image is too small for that, its first row or column is repeated.
    """
    # Indexing instead of functional.pad works for every size without a branch on H or W, which an ONNX file with
    # dynamic sizes could not represent.
    for axis, length in ((2, height), (3, width)):
        size = images.shape[axis]
        positions = torch.arange(length, device=images.device)
        mirrored = (size - 1) - (positions - (size - 1)).abs()
        images = images.index_select(axis, mirrored.clamp(min=0))
    return images
