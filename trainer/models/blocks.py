"""What the networks have in common: the numbers that describe one, how its parameters start, how pixels move."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from srshards.errors import UsageError

# The networks that have a name: architecture, features, depth, growth.
NAMED: dict[str, tuple[str, int, int, int | None]] = {
    "ultra_lite": ("compact", 24, 8, None),
    "lite": ("compact", 64, 16, None),
    "standard": ("rrdb", 64, 23, 32),
}
COLOURS = 3
SLOPE = 0.2  # of LeakyReLU, below zero
PRELU_START = 0.25


@dataclass(frozen=True)
class NetworkSpec:
    """All that has to be known to build a network, without its parameters. UsageError if there is no such network."""

    architecture: str  # "compact" or "rrdb"
    scale: int
    features: int  # channels between the layers
    depth: int  # compact: convolutions between the first and the last; rrdb: blocks
    growth: int | None = None  # rrdb: channels that each convolution of a dense block adds; compact has none

    def __post_init__(self) -> None:
        scales = Network.kinds[self.architecture].scales
        if self.scale not in scales:
            works = ", ".join(f"{scale}x" for scale in scales)
            other = "" if self.architecture == "compact" else "; the compact models (ultra_lite, lite) go from 1x to 8x"
            raise UsageError(f"{self.name} cannot enlarge {self.scale}x: it works at {works}{other}")

    @property
    def name(self) -> str:
        """`lite`, or, for numbers that have no name, e.g. `compact 48x12` (features x depth)."""
        numbers = (self.architecture, self.features, self.depth, self.growth)
        growth = "" if self.growth is None else f", growth {self.growth}"
        fallback = f"{self.architecture} {self.features}x{self.depth}{growth}"
        return next((name for name, named in NAMED.items() if named == numbers), fallback)

    @property
    def margin_px(self) -> int:
        """How far an output pixel sees, in px of the input: what a tile needs around it.

        Exact for compact. For rrdb a practical bound, see there; always a multiple of what its input is folded by.
        """
        return Network.kinds[self.architecture].margin_px(self)

    def build(self, seed: int = 0) -> "Network":
        """The network on the CPU, float32, in training mode. The same seed gives the same parameters.

        PyTorch's global generator is neither used nor moved.
        """
        network = self._without_memory().to_empty(device="cpu")
        initialise(network, torch.Generator().manual_seed(seed))
        return network

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of every parameter by its name, in the order of layers. Costs next to nothing."""
        return {name: tensor.shape for name, tensor in self._without_memory().state_dict().items()}

    def _without_memory(self) -> "Network":
        with torch.device("meta"):  # the layers' own initialisation would draw from the global generator
            return Network.kinds[self.architecture](self)


class Network(nn.Module):
    """N x 3 x H x W RGB in [0, 1] to N x 3 x scale·H x scale·W, not clamped. Any H and W from 1 px."""

    kinds: ClassVar[dict[str, type["Network"]]] = {}
    scales: ClassVar[tuple[int, ...]]

    def __init_subclass__(cls, architecture: str) -> None:
        super().__init_subclass__()
        Network.kinds[architecture] = cls

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.scale = spec.scale

    @staticmethod
    def margin_px(spec: NetworkSpec) -> int:
        raise NotImplementedError

    def finish_start(self) -> None:
        """What is not drawn; called without gradients."""

    def gain(self, convolution: str) -> float:
        """What the weights of the convolution of that name are multiplied by at the start; see `initialise`."""
        raise NotImplementedError


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


@torch.no_grad()
def initialise(network: Network, generator: torch.Generator) -> None:
    """How training from scratch starts: every parameter of `network`, drawn from `generator` in the order of layers.

    Convolutions: Kaiming normal over their inputs, which keeps the variance through the activations; biases zero.
    Less than that (`gain`) where a layer adds to something that should be seen through it at first: a tenth for a
    dense block's convolutions (its residual sum then starts near the identity) and for the last one (compact starts
    near the enlarged input, rrdb near black instead of at noise).
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * math.prod(module.kernel_size)
            std = math.sqrt(2 / (1 + SLOPE**2) / fan_in) * network.gain(name)
            module.weight.normal_(0, std, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.PReLU):
            module.weight.fill_(PRELU_START)
    network.finish_start()


def enlarge_nearest(images: Tensor, factor: int) -> Tensor:
    """N x C x H x W to N x C x factor·H x factor·W: each pixel becomes a square of itself."""
    return functional.interpolate(images, scale_factor=factor, mode="nearest") if factor > 1 else images


def leaky(features: Tensor) -> Tensor:
    """LeakyReLU in place: of a convolution's output, which the convolution does not need for its gradient."""
    # What traces the network undoes what is in place; torch.export then takes 43 instead of 19 s for `standard`.
    return functional.leaky_relu(features, SLOPE, inplace=not torch.compiler.is_compiling())


def fold(images: Tensor, factor: int) -> Tensor:
    """N x C x H x W to N x C·factor² x ⌈H / factor⌉ x ⌈W / factor⌉: pixels become channels, nothing is lost.

    Sizes that do not divide are first continued by reflection at the bottom and on the right. Where an image is too
    small to be reflected that far, its first row or column repeats.
    """
    # Indices instead of functional.pad, because the same operations then serve every size: no branch on H or W, which
    # an ONNX file with free sizes could not hold, and no size at which reflection fails.
    for axis in (2, 3):
        size = images.shape[axis]
        positions = torch.arange((size + factor - 1) // factor * factor, device=images.device)
        mirrored = (size - 1) - (positions - (size - 1)).abs()
        images = images.index_select(axis, mirrored.clamp(min=0))
    return functional.pixel_unshuffle(images, factor)
