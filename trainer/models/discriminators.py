"""The discriminators, by name, and their weights files."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from srshards.errors import UsageError
from trainer.models.blocks import COLOURS, conv3x3, conv_to_pixels, leaky, without_autocast
from trainer.models.dunet import DUnet
from trainer.models.spectral_norm import Discriminator, SpectralConv2d, built
from trainer.models.weights import read_weights
from trainer.models.weights_layout import first_few

# Ends of names: of PyTorch's parametrisation, used e.g. by traiNNer-redux, and of its older function, used here.
_RENAMED = {
    ".parametrizations.weight.original": ".weight_orig",
    ".parametrizations.weight.0._u": ".weight_u",
    ".parametrizations.weight.0._v": ".weight_v",
}


class UNet(Discriminator):
    """The discriminator of Real-ESRGAN (Wang et al., 2021): a U-Net with a logit for every pixel.

    Parameters have the names and shapes of Real-ESRGAN's files. Height and width must be multiples of 8.
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        self.conv0 = conv3x3(COLOURS, features)
        self.conv1 = SpectralConv2d(features, 2 * features, 4, stride=2)
        self.conv2 = SpectralConv2d(2 * features, 4 * features, 4, stride=2)
        self.conv3 = SpectralConv2d(4 * features, 8 * features, 4, stride=2)
        self.conv4 = SpectralConv2d(8 * features, 4 * features, 3)
        self.conv5 = SpectralConv2d(4 * features, 2 * features, 3)
        self.conv6 = SpectralConv2d(2 * features, features, 3)
        self.conv7 = SpectralConv2d(features, features, 3)
        self.conv8 = SpectralConv2d(features, features, 3)
        self.conv9 = conv3x3(features, 1)

    def forward(self, images: Tensor) -> Tensor:
        x0 = leaky(self.conv0(images))
        x1 = leaky(self.conv1(x0))
        x2 = leaky(self.conv2(x1))
        x = leaky(self.conv3(x2))
        x = leaky(self.conv4(_twice_as_large(x))) + x2
        x = leaky(self.conv5(_twice_as_large(x))) + x1
        x = leaky(self.conv6(_twice_as_large(x))) + x0
        x = leaky(self.conv7(x))
        x = leaky(self.conv8(x))
        return conv_to_pixels(self.conv9, x)


class PatchGan(Discriminator):
    """The 70 x 70 PatchGAN of pix2pix (Isola et al., 2017): a logit every 8 px, with a receptive field of 70 x 70 px.

    Its batch normalisation is replaced by spectral normalisation, because the statistics of a batch depend on how many
    ranks share it.
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(COLOURS, features, 4, stride=2, padding=1)
        self.conv1 = SpectralConv2d(features, 2 * features, 4, stride=2, bias=True)
        self.conv2 = SpectralConv2d(2 * features, 4 * features, 4, stride=2, bias=True)
        self.conv3 = SpectralConv2d(4 * features, 8 * features, 4, bias=True)
        self.conv4 = nn.Conv2d(8 * features, 1, 4, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = leaky(self.conv0(images))
        x = leaky(self.conv1(x))
        x = leaky(self.conv2(x))
        x = leaky(self.conv3(x))
        return conv_to_pixels(self.conv4, x)


def _twice_as_large(features: Tensor) -> Tensor:
    with without_autocast(features):  # which would convert to float32
        return functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class DiscriminatorRow:
    """A discriminator. Height and width of its images must be at least `min_px`, and multiples of `multiple_px`."""

    constructor: Callable[[], Discriminator]
    min_px: int
    multiple_px: int


DISCRIMINATORS = {
    "unet": DiscriminatorRow(UNet, 8, 8),
    "patchgan": DiscriminatorRow(PatchGan, 24, 1),
    "dunet": DiscriminatorRow(DUnet, 8, 8),
}


def build_discriminator(name: str, seed: int) -> Discriminator:
    """Return the discriminator `name`, one of DISCRIMINATORS, on the CPU, float32.

    Equal seeds give equal weights. PyTorch's global generator is not changed.
    """
    return built(DISCRIMINATORS[name].constructor, seed)


def load_discriminator(name: str, path: Path) -> Discriminator:
    """Return the discriminator with the weights of a file, e.g. Real-ESRGAN's `RealESRGAN_x4plus_netD.pth` for `unet`.

    UsageError if the file is missing, damaged or contains other weights.
    """
    state = {_current_name(parameter): tensor for parameter, tensor in read_weights(path).items()}
    network = build_discriminator(name, seed=0)
    example = "e.g. RealESRGAN_x4plus_netD.pth for unet"
    refuse_misfit(network, state, f"{path} is not a file of the discriminator {name} (pass one of its own, {example})")
    network.load_state_dict(state)
    return network


def refuse_misfit(network: Discriminator, state: Mapping[str, Tensor], error: str) -> None:
    """Raise UsageError, which starts with `error`, unless these are finite parameters and buffers of the network."""
    faults = list(_faults(network, state))
    if faults:
        raise UsageError(f"{error}: {first_few(faults)}")


def _faults(network: Discriminator, state: Mapping[str, Tensor]) -> Iterable[str]:
    expected = network.state_dict()
    for name, tensor in expected.items():
        if name not in state:
            yield f"{name} is missing"
        elif state[name].shape != tensor.shape:
            yield f"{name} is {list(state[name].shape)} instead of {list(tensor.shape)}"
        elif not bool(state[name].isfinite().all()):
            yield f"{name} is not finite"
    yield from (f"{name} is unknown" for name in state if name not in expected)


def _current_name(name: str) -> str:
    for end, current in _RENAMED.items():
        if name.endswith(end):
            return name.removesuffix(end) + current
    return name
