"""Takes the place of torchvision, of which no build for every PyTorch exists: the few functions that frameworks call.

Functions that change pixels give what torchvision gives. The others only have to be importable.
"""

import sys
from types import ModuleType
from typing import Any

import torch

__version__ = "0.0.0"
__path__: list[str] = []


def _normalize(tensor: torch.Tensor, mean: list[float], std: list[float], inplace: bool = False) -> torch.Tensor:
    shape = (-1, 1, 1)
    result = tensor if inplace else tensor.clone()
    return result.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))


def _rgb_to_grayscale(img: torch.Tensor, num_output_channels: int = 1) -> torch.Tensor:
    red, green, blue = img.unbind(dim=-3)
    gray = (0.2989 * red + 0.587 * green + 0.114 * blue).to(img.dtype).unsqueeze(dim=-3)
    return gray.expand(img.shape) if num_output_channels == 3 else gray


def _module(name: str, **content: Any) -> ModuleType:
    module = sys.modules[f"{__name__}.{name}"] = ModuleType(f"{__name__}.{name}")
    vars(module).update(content, __path__=[])
    return module


models = _module("models", vgg=_module("models.vgg"))
ops = _module("ops")
utils = _module("utils", make_grid=None)
transforms = _module(
    "transforms",
    functional=_module("transforms.functional", normalize=_normalize, rgb_to_grayscale=_rgb_to_grayscale),
    functional_tensor=_module("transforms.functional_tensor", rgb_to_grayscale=_rgb_to_grayscale),
)
