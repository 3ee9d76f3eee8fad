"""Differences of features of VGG19."""

import torch
from torch import Tensor, nn

from trainer.losses.image_loss import full_precision, mean
from trainer.models.vgg19 import VGG19Features

# Before the activations: options/train_realesrgan_x4plus.yml of Real-ESRGAN.
LAYERS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}


class Perceptual(nn.Module):
    """The weighted sum, over the layers, of the mean of |φ(output) - φ(target)| (Real-ESRGAN, 2021; criterion L1)."""

    def __init__(self, network: VGG19Features) -> None:
        super().__init__()
        self._network = network

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        of_output, of_target = features(self._network, output, target)
        terms = [weight * mean((of_output[layer] - of_target[layer]).abs()) for layer, weight in LAYERS.items()]
        return torch.stack(terms).sum()


def features(network: VGG19Features, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the features of both by layer in float32, computed in the dtype of autocast if that is enabled."""
    return _full_precision(network(output)), _full_precision(network(target))


def _full_precision(features: dict[str, Tensor]) -> dict[str, Tensor]:
    return {layer: full_precision(values) for layer, values in features.items()}
