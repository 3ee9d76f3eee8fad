"""What the trainer knows of spandrel's architectures: how to build them from scratch, their margins and sizes.

The table holds the architectures with training support. Networks of others can be evaluated, upscaled with and
exported; spandrel itself says what they need.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# For networks with global or very large receptive fields. Other tools overlap tiles by 16 to 32 px.
PRACTICAL_MARGIN = 32

Arguments = Mapping[str, Any]  # of the constructor


@dataclass(frozen=True)
class Architecture:
    """A class of spandrel with training support."""

    scale_argument: str  # the argument of the constructor
    scales: tuple[int, ...]
    field_px: Callable[[Arguments], int]  # receptive field to each side, in px of the input
    multiple_px: Callable[[Arguments], int] = lambda _: 1

    def margin_px(self, arguments: Arguments) -> int:
        """Return the receptive field or the practical bound, whichever is smaller, as a multiple of `multiple_px`."""
        multiple = self.multiple_px(arguments)
        return -(-min(self.field_px(arguments), PRACTICAL_MARGIN) // multiple) * multiple


ARCHITECTURES: Mapping[str, Architecture] = {
    # 6 blocks of 3 convolutions; first, last and upsampling convolution
    "SPAN": Architecture("upscale", (1, 2, 3, 4, 8), lambda _: 6 * 3 + 3),
    # blocks of two 3 x 3 convolutions at most, the large kernel and the attention; first and last convolution
    "PLKSR": Architecture(
        "upscaling_factor", (1, 2, 3, 4, 8), lambda a: a["n_blocks"] * (3 + a["kernel_size"] // 2) + 2
    ),
}
