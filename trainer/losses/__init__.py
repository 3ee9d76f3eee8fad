"""The training losses: functions of the network's output and HR, made by `build_loss`."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from trainer.evaluation.perceptual import load_networks
from trainer.losses import contextual, perceptual
from trainer.losses.artefacts import LDL
from trainer.losses.colour import CHROMA, LUMA, Blurred
from trainer.losses.contextual import Contextual
from trainer.losses.frequency import fft, focal_frequency
from trainer.losses.gradient import Gradient
from trainer.losses.image_loss import ImageLoss
from trainer.losses.iqa import ImageQuality
from trainer.losses.perceptual import Perceptual
from trainer.losses.pixel import charbonnier, l1
from trainer.losses.structure import MSSSIM
from trainer.losses.weights import find_loss_weights
from trainer.models.vgg19 import VGG19Features, load_vgg19
from trainer.weights_table import VGG19

__all__ = ["Loss", "build_loss", "find_loss_weights"]

Loss = Callable[..., Tensor]

_PIXEL = {"l1": l1, "charbonnier": charbonnier}
_WITHOUT_WEIGHTS: dict[str, Callable[[], Callable[..., Tensor]]] = {
    "msssim": MSSSIM,
    "fft": lambda: fft,
    "focal_frequency": lambda: focal_frequency,
    "luma": lambda: Blurred(LUMA),
    "colour": lambda: Blurred(CHROMA),
    "gradient": Gradient,
    "ldl": LDL,
}


def build_loss(name: str, device: torch.device, weights: Path | None = None) -> Loss:
    """Return the loss `name`, one of `trainer.loss_table.LOSSES`, with its constants and networks on the device.

    `trainer.losses.image_loss.ImageLoss` describes how to call it. Calls do not wait for a GPU, and a CUDA graph can
    capture them. `weights` is a folder or file with weights of networks: `find_loss_weights`, which also describes the
    errors.
    """
    if name in _PIXEL:
        return _PIXEL[name]
    if name in _WITHOUT_WEIGHTS:
        return ImageLoss(name, _WITHOUT_WEIGHTS[name]()).to(device)
    files = find_loss_weights([name], weights)
    if name == "perceptual":
        return ImageLoss(name, Perceptual(_vgg19(files, perceptual.LAYERS, device)), in_autocast=True)
    if name == "contextual":
        return ImageLoss(name, Contextual(_vgg19(files, [contextual.LAYER], device)), in_autocast=True)
    return ImageLoss(name, ImageQuality(load_networks([name], files, device)[name]))


def _vgg19(files: dict[str, Path], layers: Iterable[str], device: torch.device) -> VGG19Features:
    network = load_vgg19(files[VGG19.name], layers).to(device)
    # In the layout of the batches, in which convolutions are fastest.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
