"""Parts of discriminators: the base class, and convolutions with spectral normalisation."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.blocks import without_autocast

_INITIAL_ITERATIONS = 15  # as in PyTorch's parametrisation; estimates for random matrices are then within 5 %
_EPSILON = 1e-12  # against division by zero

D = TypeVar("D", bound="Discriminator")


class SpectralConv2d(nn.Module):
    """A convolution whose weights, as a matrix of output channels x the rest, are divided by their largest singular
    value (Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018).

    The value is uᵀWv, by estimates u and v of the singular vectors. They are buffers that only `iterate` changes: the
    forward pass is a pure function, the same in training and evaluation mode. Names are those of
    `torch.nn.utils.spectral_norm`, with which Real-ESRGAN's discriminators are saved.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, inputs: int, outputs: int, kernel_px: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.weight_orig = nn.Parameter(torch.empty(outputs, inputs, kernel_px, kernel_px))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.register_buffer("weight_u", torch.empty(outputs))
        self.register_buffer("weight_v", torch.empty(inputs * kernel_px**2))

    def forward(self, features: Tensor) -> Tensor:
        with without_autocast(self.weight_orig):
            norm = torch.dot(self.weight_u, torch.mv(self.weight_orig.flatten(1), self.weight_v))
            weight = self.weight_orig / norm
        return functional.conv2d(features, weight, self.bias, self.stride, padding=1)

    @torch.no_grad()
    def iterate(self) -> None:
        """Do a power iteration, in place."""
        matrix = self.weight_orig.flatten(1)
        functional.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=_EPSILON, out=self.weight_v)
        functional.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=_EPSILON, out=self.weight_u)


class Discriminator(nn.Module):
    """Maps N x 3 x H x W RGB in [0, 1] to N x 1 x h x w logits, positive for real images; float32 also under autocast.

    Nothing in it depends on other images of the batch.
    """

    def iterate(self) -> None:
        """Do a power iteration of every spectral normalisation; see `SpectralConv2d`.

        To be called once after each change of the weights: the estimates are then always those of the current weights,
        independent of the number of forward passes, ranks and micro-batches, and equal on all ranks. (Real-ESRGAN
        iterates in every forward pass, three times per step.)
        """
        for module in self.modules():
            if isinstance(module, SpectralConv2d):
                module.iterate()

    def set_own_weights(self, generator: torch.Generator) -> None:
        """Set the values that are not drawn like those of other convolutions. Called under no_grad."""


def built(constructor: Callable[[], D], seed: int) -> D:
    """Return a discriminator on the CPU, float32. Equal seeds give equal values; the global generator is not used."""
    with torch.device("meta"):
        network = constructor()
    memory = {name: torch.empty(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(memory, assign=True)
    _initialise(network, torch.Generator().manual_seed(seed))
    return network


@torch.no_grad()
def _initialise(network: Discriminator, generator: torch.Generator) -> None:
    """Draw all parameters uniformly within ±1/sqrt(fan-in), as PyTorch does, and with it Real-ESRGAN."""
    for module in network.modules():
        if isinstance(module, SpectralConv2d | nn.Conv2d):
            weight = module.weight_orig if isinstance(module, SpectralConv2d) else module.weight
            bound = weight[0].numel() ** -0.5
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
        if isinstance(module, SpectralConv2d):
            module.weight_u.normal_(generator=generator)
            for _ in range(_INITIAL_ITERATIONS):
                module.iterate()
    network.set_own_weights(generator)
