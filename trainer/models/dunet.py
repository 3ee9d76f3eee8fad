"""The discriminator DUnet: a U-Net that learns where to sample when it upsamples."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.blocks import COLOURS, conv3x3, conv_to_pixels, without_autocast
from trainer.models.spectral_norm import Discriminator, SpectralConv2d

_GROUPS = 4  # of channels that are sampled at the same positions
_OFFSET_STD = 1e-3  # of the initial weights, as in the code of DySample's authors


class DySample(nn.Module):
    """Upsamples N x C x H x W by 2 in height and width, at learned positions.

    Liu et al., Learning to Upsample by Learning to Sample, 2023, with a dynamic scope factor ("LP+"): each output pixel
    of each group is sampled at the position of bilinear upsampling plus an offset of at most a few px.
    """

    init_pos: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        positions = 2 * _GROUPS * 2**2  # x and y of 2 x 2 output pixels per input pixel
        self.offset = nn.Conv2d(channels, positions, 1)
        self.scope = nn.Conv2d(channels, positions, 1, bias=False)
        self.register_buffer("init_pos", torch.empty(1, positions, 1, 1))

    def set_initial_weights(self, generator: torch.Generator) -> None:
        """Start near bilinear upsampling, with the offsets' scope at the middle of its range."""
        assert self.offset.bias is not None
        self.offset.weight.normal_(0, _OFFSET_STD, generator=generator)
        self.offset.bias.zero_()
        self.scope.weight.zero_()
        quarter = torch.tensor([-0.25, 0.25])  # distance of output pixels from the centre of their input pixel
        x, y = quarter.expand(_GROUPS, 2, 2), quarter[:, None].expand(_GROUPS, 2, 2)
        self.init_pos.copy_(torch.stack([x, y]).reshape(self.init_pos.shape))

    def forward(self, features: Tensor) -> Tensor:
        offsets = self.offset(features) * self.scope(features).sigmoid() * 0.5
        with without_autocast(features):  # half precision cannot represent positions
            return _sampled(features.float(), offsets.float() + self.init_pos)


def _sampled(features: Tensor, offsets: Tensor) -> Tensor:
    """Sample N x C x H x W bilinearly at the centre of each pixel + N x 2·G·4 x H x W offsets in px."""
    count, channels, height, width = features.shape
    offsets = functional.pixel_shuffle(offsets, 2).view(count, 2, _GROUPS, 2 * height, 2 * width)
    axes = []
    for number, (size, shape) in enumerate(((width, (1, -1)), (height, (-1, 1)))):
        centres = torch.arange(size, device=features.device).repeat_interleave(2, output_size=2 * size) + 0.5
        axes.append((centres.view(shape) + offsets[:, number]) * (2 / size) - 1)
    grid = torch.stack(axes, -1).flatten(0, 1)
    groups = features.reshape(count * _GROUPS, channels // _GROUPS, height, width)
    sampled = functional.grid_sample(groups, grid, "bilinear", "border", align_corners=False)
    return sampled.view(count, channels, 2 * height, 2 * width)


class DUnet(Discriminator):
    """The U-Net of Real-ESRGAN's size with Mish, strided 3 x 3 convolutions and DySample (umzi2/DUnet, also in neosr).

    Parameters have the names of that code. Height and width must be multiples of 8.
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        self.in_to_dim = conv3x3(COLOURS, features)
        self.e_x1 = _down(features)
        self.e_x2 = _down(2 * features)
        self.e_x3 = _down(4 * features)
        self.up1 = _up(8 * features)
        self.up2 = _up(4 * features)
        self.up3 = _up(2 * features)
        self.end_conv = nn.Sequential(
            SpectralConv2d(features, features, 3),
            nn.Mish(),
            SpectralConv2d(features, features, 3),
            nn.Mish(),
            conv3x3(features, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        x0 = self.in_to_dim(images)
        x1 = self.e_x1(x0)
        x2 = self.e_x2(x1)
        x = self.up1(self.e_x3(x2)) + x2
        x = self.up2(x) + x1
        x = self.up3(x) + x0
        last = self.end_conv[-1]
        assert isinstance(last, nn.Conv2d)
        return conv_to_pixels(last, self.end_conv[:-1](x))

    def set_own_weights(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, DySample):
                module.set_initial_weights(generator)


def _down(channels: int) -> nn.Sequential:
    return nn.Sequential(SpectralConv2d(channels, 2 * channels, 3, stride=2, bias=True), nn.Mish())


def _up(channels: int) -> nn.Sequential:
    return nn.Sequential(DySample(channels), SpectralConv2d(channels, channels // 2, 3, bias=True))
