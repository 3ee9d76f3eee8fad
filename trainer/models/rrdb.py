"""RRDBNet, the network of ESRGAN: residual-in-residual dense blocks.

Parameter names are Real-ESRGAN's at 1x, 2x and 4x, so that weights can be exchanged.
"""

import torch
from torch import Tensor, nn

from trainer.models.architectures import PRACTICAL_MARGIN
from trainer.models.blocks import (
    COLOURS,
    BuiltInSpec,
    Network,
    conv3x3,
    conv_to_pixels,
    leaky,
    pixel_unshuffle,
    upsample_nearest,
)

RESIDUAL = 0.2  # factor on a block's output before it is added to the block's input
UNSHUFFLE_FACTORS = {1: 4, 2: 2, 3: 1, 4: 1}  # by scale; 1x and 2x are 4x at a quarter and half of the resolution


class DenseBlock(nn.Module):
    """Five convolutions, each of which takes the input and the outputs of all previous ones."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(features, growth)
        self.conv2 = conv3x3(features + growth, growth)
        self.conv3 = conv3x3(features + 2 * growth, growth)
        self.conv4 = conv3x3(features + 3 * growth, growth)
        self.conv5 = conv3x3(features + 4 * growth, features)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen.append(leaky(conv(torch.cat(seen, 1))))
        added: Tensor = self.conv5(torch.cat(seen, 1))
        return added * RESIDUAL + x


class Block(nn.Module):
    """Three dense blocks with an outer residual: the "residual in residual"."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return added * RESIDUAL + x


class Tail3x(nn.Module):
    """The layers from features to pixels at 3x, which other tools lack: one upsampling, then the usual two layers.

    All of them have a separate prefix. Other tools count the `conv_up` layers to infer the scale, and would read a file
    with the usual names as 1x or 2x; without a top-level `conv_last` they reject it.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv_up = conv3x3(features, features)
        self.conv_hr = conv3x3(features, features)
        self.conv_last = conv3x3(features, COLOURS)

    def forward(self, x: Tensor) -> Tensor:
        x = leaky(self.conv_up(upsample_nearest(x, 3)))
        return conv_to_pixels(self.conv_last, leaky(self.conv_hr(x)))


class Rrdb(Network, architecture="rrdb"):
    """`depth` blocks at input resolution (1x: a quarter, 2x: half of it), followed by upsampling."""

    scales = (1, 2, 3, 4)

    def __init__(self, spec: BuiltInSpec) -> None:
        super().__init__(spec)
        assert spec.growth is not None
        self.factor = UNSHUFFLE_FACTORS[spec.scale]
        self.conv_first = conv3x3(COLOURS * self.factor**2, spec.features)
        self.body = nn.Sequential(*(Block(spec.features, spec.growth) for _ in range(spec.depth)))
        self.conv_body = conv3x3(spec.features, spec.features)
        if spec.scale == 3:
            self.tail_3x = Tail3x(spec.features)
        else:
            self.conv_up1 = conv3x3(spec.features, spec.features)
            self.conv_up2 = conv3x3(spec.features, spec.features)
            self.conv_hr = conv3x3(spec.features, spec.features)
            self.conv_last = conv3x3(spec.features, COLOURS)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        x: Tensor = self.conv_first(pixel_unshuffle(images, self.factor) if self.factor > 1 else images)
        x = x + self.conv_body(self.body(x))
        if self.scale == 3:
            upscaled: Tensor = self.tail_3x(x)
            return upscaled
        x = leaky(self.conv_up1(upsample_nearest(x, 2)))
        x = leaky(self.conv_up2(upsample_nearest(x, 2)))
        x = conv_to_pixels(self.conv_last, leaky(self.conv_hr(x)))
        return x[:, :, : self.scale * height, : self.scale * width] if self.factor > 1 else x

    @staticmethod
    def margin_px(spec: BuiltInSpec) -> int:
        """Return PRACTICAL_MARGIN at the resolution of the blocks, or the receptive field where that is smaller.

        The receptive field of 23 blocks extends 349 px to each side, but its outer part has negligible weight.
        Real-ESRGAN overlaps tiles by 10 px, other tools by 16 to 32.
        """
        field = 15 * spec.depth + 2 + (1 if spec.scale == 3 else 2)  # blocks; conv_first, conv_body; upsampling
        factor = UNSHUFFLE_FACTORS[spec.scale]
        return min(PRACTICAL_MARGIN, field + (factor > 1)) * factor

    @staticmethod
    def multiple_px(spec: BuiltInSpec) -> int:
        return UNSHUFFLE_FACTORS[spec.scale]

    def gain(self, convolution: str) -> float:
        if convolution == "conv_body":
            # A block starts as 1.2 times the identity, because its residual sum includes its input once more, so 23 of
            # them amplify 66 times. The initial conv_body compensates for that.
            return (1 + RESIDUAL) ** -len(self.body)
        return 0.1 if ".rdb" in convolution or convolution.endswith("conv_last") else 1
