"""SRVGGNetCompact: a plain row of convolutions at the input's size, and one step to the output's. Fast everywhere.

The names of the parameters are Real-ESRGAN's, so that its weights load here and ours load there: `body.0` is the first
convolution, `body.1` its PReLU, and so on in turns.
"""

from torch import Tensor, nn
from torch.nn import functional

from trainer.models.blocks import COLOURS, Network, NetworkSpec, conv3x3, enlarge_nearest


class Compact(Network, architecture="compact"):
    """`depth` + 2 convolutions; what they give is added to the input enlarged by repeating its pixels."""

    scales = (1, 2, 3, 4, 5, 6, 7, 8)

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        layers: list[nn.Module] = []
        for inputs in (COLOURS, *[spec.features] * spec.depth):
            layers += [conv3x3(inputs, spec.features), nn.PReLU(spec.features)]
        self.body = nn.Sequential(*layers, conv3x3(spec.features, COLOURS * spec.scale**2))

    def forward(self, images: Tensor) -> Tensor:
        details = functional.pixel_shuffle(self.body(images), self.scale)
        return details + enlarge_nearest(images, self.scale)

    @staticmethod
    def margin_px(spec: NetworkSpec) -> int:
        return spec.depth + 2  # each 3 x 3 convolution sees one pixel further

    def gain(self, convolution: str) -> float:
        return 0.1 if convolution == f"body.{len(self.body) - 1}" else 1
