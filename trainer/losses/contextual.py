"""Similarity of features wherever they are: for outputs whose details are plausible but displaced."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.losses.image_loss import mean
from trainer.losses.perceptual import features
from trainer.models.vgg19 import VGG19Features

LAYER = "relu3_4"
_BANDWIDTH = 0.5
_EPSILON = 1e-5
_MAX_BLOCK = 32  # edge in features: 128 px


class Contextual(nn.Module):
    """-log CX(output, target), the mean over images (Mechrez, Talmi, Zelnik-Manor, 2018), of features of VGG19.

    For features x of the output and y of the target, and μ the mean of y in the image, d_ij = 1 - cos(x_i - μ, y_j - μ)
    and d'_ij = d_ij / (min_k d_ik + 1e-5). CX_ij is the softmax of -d'_ij / 0.5 over j, and CX the mean over j of
    max_i CX_ij.

    All pairs of features would take memory by the fourth power of the patch edge. They are compared within blocks of at
    most 32 x 32, into which the features are divided evenly, so memory grows with the number of pixels.
    """

    def __init__(self, network: VGG19Features) -> None:
        super().__init__()
        self._network = network

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        x, y = (one[LAYER] for one in features(self._network, output, target))
        with torch.autocast(output.device.type, enabled=False):
            centre = y.mean((2, 3), keepdim=True)
            x, y = (functional.normalize(one - centre) for one in (x, y))
            best = [_best_matches(*blocks) for blocks in zip(_blocks(x), _blocks(y), strict=True)]
            return mean(-torch.cat(best, 1).mean(1).log())


def _blocks(values: Tensor) -> list[Tensor]:
    """Divide N x C x H x W into N x C x h x w of nearly equal sizes."""
    rows, columns = (-(-edge // _MAX_BLOCK) for edge in values.shape[2:])
    return [block for row in values.tensor_split(rows, 2) for block in row.tensor_split(columns, 3)]


def _best_matches(x: Tensor, y: Tensor) -> Tensor:
    """Return max_i CX_ij of all j, as N x (h·w), of unit vectors."""
    distances = (1 - x.flatten(2).mT @ y.flatten(2)).clamp(min=0)
    relative = distances / (distances.amin(2, keepdim=True) + _EPSILON)
    return (relative / -_BANDWIDTH).softmax(2).amax(1)
