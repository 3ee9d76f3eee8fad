"""SRVGGNetCompact: a chain of convolutions at input resolution, followed by a single pixel shuffle. Fast.

Parameter names are Real-ESRGAN's, so that weights can be exchanged: `body.0` is the first convolution, `body.1` its
PReLU, and so on.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.blocks import COLOURS, BuiltInSpec, Network, conv3x3
from trainer.models.prelu import PReLU


class Compact(Network, architecture="compact"):
    """`depth` + 2 convolutions, whose output is added to the input upsampled by repeating pixels."""

    scales = (1, 2, 3, 4, 5, 6, 7, 8)

    def __init__(self, spec: BuiltInSpec) -> None:
        super().__init__(spec)
        layers: list[nn.Module] = []
        for inputs in (COLOURS, *[spec.features] * spec.depth):
            layers += [conv3x3(inputs, spec.features), PReLU(spec.features)]
        self.body = nn.Sequential(*layers, conv3x3(spec.features, COLOURS * spec.scale**2))

    def forward(self, images: Tensor) -> Tensor:
        details: Tensor = self.body(images).unflatten(1, (COLOURS, self.scale**2))
        # Each pixel is added to its block before the shuffle, where both have the same memory layout.
        return functional.pixel_shuffle((details + images.unsqueeze(2)).flatten(1, 2), self.scale)

    def set_fixed_weights(self) -> None:
        """Start as interpolation: three features carry the colours, from which the last convolution interpolates.

        Colours pass every layer unchanged because they are not negative, where PReLU is the identity. Training thus
        starts near bicubic upscaling instead of repeated pixels, which saves `ultra_lite` minutes on a CPU.
        """
        convolutions = [layer for layer in self.body if isinstance(layer, nn.Conv2d)]
        for convolution in convolutions[:-1]:
            convolution.weight[:COLOURS] = 0
            for colour in range(COLOURS):
                convolution.weight[colour, colour, 1, 1] = 1
        blend = convolutions[-1].weight.view(COLOURS, self.scale**2, -1, 3, 3)
        blend[:, :, :COLOURS] = 0
        for colour in range(COLOURS):
            blend[colour, :, colour] = _interpolation(self.scale)

    @staticmethod
    def margin_px(spec: BuiltInSpec) -> int:
        return spec.depth + 2  # each 3 x 3 convolution sees one pixel further

    def gain(self, convolution: str) -> float:
        return 0.01 if convolution == f"body.{len(self.body) - 1}" else 1


def _interpolation(scale: int) -> Tensor:
    """Return scale² x 3 x 3 kernels that correct repeated pixels to Keys' cubic (a = -0.5), cropped to 3 x 3 taps."""
    rows = []
    for phase in range(scale):
        offset = (phase + 0.5) / scale - 0.5  # of the output pixel from the centre of the input pixel, in input px
        taps = torch.tensor([_keys(tap - offset) for tap in (-1, 0, 1)])
        rows.append(taps / taps.sum())
    kernels = torch.einsum("iy,jx->ijyx", torch.stack(rows), torch.stack(rows)).reshape(scale**2, 3, 3)
    kernels[:, 1, 1] -= 1  # the repeated pixel itself is added by `forward`
    return kernels


def _keys(x: float) -> float:
    """Return Keys' kernel (1981) with a = -0.5."""
    x = abs(x)
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else max(0.0, 2 - x) ** 2 * (1 - x) / 2
