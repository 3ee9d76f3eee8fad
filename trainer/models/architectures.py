"""The architectures of spandrel with training support: what the trainer has to know about each.

A network of this table trains all of its parameters, is deterministic, and opens in spandrel as the same network
(tests/test_trainer_spandrel.py). docs/decisions/033-networks-of-spandrel.md says why others are missing; these can be
evaluated, used to upscale, and exported.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PRACTICAL_MARGIN = 32  # px, where the receptive field is larger or global

Arguments = Mapping[str, Any]  # of the constructor


@dataclass(frozen=True)
class SizeRequirements:
    """Sizes of images that a network accepts. spandrel pads others, and `SpandrelNetwork` pads them in the same way."""

    minimum_px: int = 1
    multiple_px: int = 1
    is_square: bool = False


ANY_SIZE = SizeRequirements()


@dataclass(frozen=True)
class Architecture:
    """What the trainer knows about a class of spandrel.

    `scale_argument` is the argument of the constructor that sets the scale. `field_px` returns the receptive field to
    each side in px of the input, infinite for global operations; `practical_px` is the margin where that is larger,
    measured by benchmarks/bench_margins.py. `multiple_px` returns the edge of its windows, or of the blocks that it
    pools or unshuffles. `needs` are the requirements that spandrel states. `min_batch` is the smallest batch to train
    with.
    """

    scale_argument: str
    scales: Callable[[Arguments], tuple[int, ...]] = lambda _: (1, 2, 3, 4, 8)
    field_px: Callable[[Arguments], float] = lambda _: math.inf
    practical_px: int = PRACTICAL_MARGIN
    multiple_px: Callable[[Arguments], int] = lambda _: 1
    needs: SizeRequirements = ANY_SIZE
    min_batch: int = 1

    def margin_px(self, arguments: Arguments) -> int:
        """Return the receptive field or the practical bound, whichever is smaller, as a multiple of `multiple_px`."""
        multiple = self.multiple_px(arguments)
        return math.ceil(min(self.field_px(arguments), self.practical_px) / multiple) * multiple


def _swinir_scales(arguments: Arguments) -> tuple[int, ...]:
    if arguments.get("start_unshuffle", 1) > 1:  # spandrel would read the file of such a network as another one
        return ()
    return (2, 4, 8) if arguments["upsampler"] == "nearest+conv" else (1, 2, 3, 4, 8)


def _dat_scales(arguments: Arguments) -> tuple[int, ...]:
    return (2, 3, 4, 8) if arguments["upsampler"] == "pixelshuffle" else (1, 2, 3, 4, 8)


def _plksr_field(arguments: Arguments) -> float:
    """Blocks of a channel mixer of one or two 3 x 3 convolutions, a large kernel and a 3 x 3 attention."""
    if arguments["lk_type"] == "SparsePLK":
        return math.inf
    mixer = 2 if arguments["ccm_type"] == "DCCM" else 1
    block = mixer + arguments["kernel_size"] // 2 + bool(arguments["use_ea"])
    return float(arguments["n_blocks"] * block + 2)


def _real_plksr_field(arguments: Arguments) -> float:
    """As PLKSR, but the statistics of group normalisation are those of the whole image or tile."""
    if not arguments["layer_norm"] or arguments["dysample"]:
        return math.inf
    return float(arguments["n_blocks"] * (2 + arguments["kernel_size"] // 2 + bool(arguments["use_ea"])) + 2)


def _window(arguments: Arguments) -> int:
    return int(arguments["window_size"])


def _split(arguments: Arguments) -> int:
    return math.lcm(*arguments["split_size"])


ARCHITECTURES: Mapping[str, Architecture] = {
    # six blocks of three convolutions; first, next to last and last convolution
    "SPAN": Architecture("upscale", field_px=lambda _: 6 * 3 + 3),
    "PLKSR": Architecture("upscaling_factor", field_px=_plksr_field),
    "RealPLKSR": Architecture("upscaling_factor", field_px=_real_plksr_field),
    "MoSR": Architecture("upscale"),
    "SAFMN": Architecture(
        "upscaling_factor", practical_px=48, multiple_px=lambda _: 8, needs=SizeRequirements(multiple_px=8)
    ),
    "OmniSR": Architecture("up_scale", multiple_px=_window, needs=SizeRequirements(16)),
    "SwinIR": Architecture("upscale", _swinir_scales, multiple_px=_window, needs=SizeRequirements(16)),
    "Swin2SR": Architecture("upscale", _swinir_scales, multiple_px=_window, needs=SizeRequirements(16)),
    "HAT": Architecture("upscale", multiple_px=_window, needs=SizeRequirements(16)),
    "DRCT": Architecture("upscale", multiple_px=_window, needs=SizeRequirements(multiple_px=16)),
    "ATD": Architecture("upscale", multiple_px=_window, needs=SizeRequirements(8)),
    # The batch normalisation of its channel interaction needs two values per channel.
    "DAT": Architecture("upscale", _dat_scales, multiple_px=_split, needs=SizeRequirements(16), min_batch=2),
    "RGT": Architecture("upscale", multiple_px=_split, needs=SizeRequirements(16)),
}
