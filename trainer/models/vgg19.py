"""The convolutional layers of VGG19, whose features a perceptual loss compares. Reads torchvision's weights file."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from srshards.errors import UsageError
from trainer.models.weights import read_weights
from trainer.models.weights_layout import first_few
from trainer.weights_table import VGG19

_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and number of convolutions
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in RGB


class _Conv(NamedTuple):
    """A convolution: `name` is e.g. 3_4 for the fourth of block 3, `number` its position among torchvision's layers."""

    name: str
    number: int
    inputs: int
    channels: int


def _convolutions() -> list[_Conv]:
    convs: list[_Conv] = []
    number, inputs = 0, 3
    for block, (channels, count) in enumerate(_BLOCKS, 1):
        for conv in range(1, count + 1):
            convs.append(_Conv(f"{block}_{conv}", number, inputs, channels))
            number += 2  # an activation follows
            inputs = channels
        number += 1  # a pooling follows
    return convs


_CONVS = _convolutions()
LAYERS = tuple(f"{kind}{conv.name}" for conv in _CONVS for kind in ("conv", "relu"))


class VGG19Features(nn.Module):
    """The features of VGG19 in `layers`: `conv3_4` before the activation of a convolution, `relu3_4` after it.

    Has the layers up to the deepest of these, with fixed parameters named as torchvision's. They are not initialised;
    `load_vgg19` loads them. ValueError for names that are not in LAYERS.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: Iterable[str]) -> None:
        super().__init__()
        self.layers = frozenset(layers)
        if not self.layers or not self.layers <= set(LAYERS):
            unknown = ", ".join(sorted(self.layers - set(LAYERS))) or "no layers"
            raise ValueError(f"{unknown}; expected some of {', '.join(LAYERS)}")
        deepest = max(map(LAYERS.index, self.layers)) // 2
        self._convs = _CONVS[: deepest + 1]
        self.features = nn.ModuleDict({str(conv.number): _uninitialised(conv) for conv in self._convs})
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features by layer, from the shallowest, for N x 3 x H x W RGB in [0, 1].

        They are normalised here with ImageNet's mean and standard deviation. Block b has features of H/2^(b-1) x
        W/2^(b-1), rounded down, so the images must have at least 2^(b-1) px on each side.
        """
        x = (images - self.mean) / self.std
        features = {}
        for conv in self._convs:
            if conv.name.endswith("_1") and conv is not _CONVS[0]:
                x = functional.max_pool2d(x, 2)
            x = self.features[str(conv.number)](x)
            if f"conv{conv.name}" in self.layers:
                features[f"conv{conv.name}"] = x
            x = functional.relu(x)
            if f"relu{conv.name}" in self.layers:
                features[f"relu{conv.name}"] = x
        return features


def _uninitialised(conv: _Conv) -> nn.Module:
    # Initialising would take longer than loading, and use PyTorch's global generator.
    module: nn.Module = nn.utils.skip_init(nn.Conv2d, conv.inputs, conv.channels, 3, padding=1)  # type: ignore[no-untyped-call]
    return module


def load_vgg19(path: Path, layers: Iterable[str]) -> VGG19Features:
    """Return the network, on the CPU, with the weights of torchvision's file or a .safetensors file of the same names.

    UsageError if the file is missing, damaged or contains other weights; it says where to get torchvision's.
    """
    network = VGG19Features(layers)
    destination = (path if path.is_dir() else path.parent) / VGG19.name
    fetch = (
        f"torchvision's {VGG19.name} ({VGG19.size}) has them: curl -fL -o {shlex.quote(str(destination))} {VGG19.url}"
    )
    try:
        state = read_weights(path)
    except UsageError as error:
        raise UsageError(f"cannot read the weights of VGG19: {error}; {fetch}") from error
    faults = list(_faults(state))
    if faults:
        raise UsageError(f"{path} does not have the weights of VGG19: {first_few(faults)}; {fetch}")
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return network


def _faults(state: dict[str, Tensor]) -> Iterable[str]:
    """Yield how parameters differ from those of the convolutions, of all, since VGG16 has the same shallow ones."""
    for conv in _CONVS:
        shapes = {"weight": (conv.channels, conv.inputs, 3, 3), "bias": (conv.channels,)}
        for kind, shape in shapes.items():
            name = f"features.{conv.number}.{kind}"
            if name not in state:
                yield f"{name} is missing"
            elif state[name].shape != shape:
                yield f"{name} is {list(state[name].shape)} instead of {list(shape)}"
