"""Augmentation of batches: MixUp, CutMix and CutBlur, drawn from the seed and the step.

At most one is applied to a step, with the same draw for all of its patches. MixUp and CutMix mix each patch with its
neighbour, 0 with 1, 2 with 3 and so on. So a step is the same however its patches are divided into batches and among
processes, as long as these have an even number of patches each. Does not import PyTorch, which is too slow for help.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from srshards.errors import UsageError
from srshards.terminal.text import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

AUGMENTATIONS = ("mixup", "cutmix", "cutblur")
PAIRING = frozenset({"mixup", "cutmix"})  # those that need two patches
_CUT_SHARE = 0.7  # of the edge of a patch: alpha of CutMix and CutBlur in Yoo et al., 2020
_PARTS = 256  # of which a share of MixUp is a multiple, for integer arithmetic, which is the same on all devices


class Augment(NamedTuple):
    """An augmentation, and the share of the steps that use it, above 0 and up to 1."""

    name: str
    probability: float

    def __str__(self) -> str:
        return f"{self.name}:{self.probability}"


def parse_augment(text: str) -> Augment:
    """Parse `NAME:PROBABILITY`, e.g. `cutblur:0.3`. UsageError for an unknown name or a value out of range."""
    name, _, value = text.partition(":")
    if name not in AUGMENTATIONS:
        near = did_you_mean(name, AUGMENTATIONS) or f"expected one of {', '.join(AUGMENTATIONS)}"
        raise UsageError(f"unknown augmentation {name!r}; {near}")
    try:
        probability = float(value)
    except ValueError:
        probability = 0.0
    if not 0 < probability <= 1:
        raise UsageError(f"{text!r}: expected the share of steps, above 0 and up to 1, e.g. {name}:0.3")
    return Augment(name, probability)


def check_augments(augments: Sequence[Augment]) -> None:
    """Raise UsageError if one is repeated, or if together they have more than all steps."""
    names = [one.name for one in augments]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise UsageError(f"--augment {repeated} is passed twice; pass it once")
    total = sum(one.probability for one in augments)
    if total > 1 + 1e-9:
        raise UsageError(
            f"--augment {', '.join(map(str, augments))}: a step has one augmentation at most, but their shares of the "
            f"steps add up to {total:g}; pass shares of 1 in total or less"
        )


def augmented(
    augments: Sequence[Augment], seed: int, step: int, hr: "Tensor", network_input: "Tensor"
) -> tuple["Tensor", "Tensor"]:
    """Return a batch of a step with the augmentation drawn for it, as new tensors, or else as it is.

    Both are N x H x W x 3 uint8; HR is larger than the input by a whole factor s. N is even for those in PAIRING.

    - MixUp (Zhang et al., 2018, with alpha = 1): m a + (1 - m) b for patch a and neighbour b, in HR and input; m is
      uniform in [0, 1].
    - CutMix (Yun et al., 2019): a box of the neighbour replaces the same box of the patch, in HR and input.
    - CutBlur (Yoo et al., 2020): a box of the input, or everything outside of it, is replaced by HR, averaged over
      s x s px. HR stays as it is.

    Boxes lie anywhere on the grid of the input; their edges are 0.7 times those of the patch.
    """
    if not augments:
        return hr, network_input
    draw = random.Random(f"{seed} {step}").random  # the only method whose numbers Python never changes
    name, chosen = "", draw()
    for one in augments:
        if chosen < one.probability:
            name = one.name
            break
        chosen -= one.probability
    if name == "mixup":
        parts = int(draw() * (_PARTS + 1))
        return _mixed(hr, parts), _mixed(network_input, parts)
    scale = hr.shape[1] // network_input.shape[1]
    top, bottom, left, right = (edge for size in network_input.shape[1:3] for edge in _interval(size, draw()))
    if name == "cutmix":
        box = (slice(None), slice(top, bottom), slice(left, right))
        hr_box = (slice(None), slice(top * scale, bottom * scale), slice(left * scale, right * scale))
        return _pasted(hr, _neighbours(hr), hr_box), _pasted(network_input, _neighbours(network_input), box)
    if name == "cutblur":
        box = (slice(None), slice(top, bottom), slice(left, right))
        reduced = _averaged(hr, scale)
        is_inside = draw() < 0.5
        return hr, _pasted(network_input, reduced, box) if is_inside else _pasted(reduced, network_input, box)
    return hr, network_input


def _interval(size: int, position: float) -> tuple[int, int]:
    """Return the ends of an interval of 0.7 times this size, by its position in [0, 1)."""
    length = max(1, int(_CUT_SHARE * size))
    start = int(position * (size - length + 1))
    return start, start + length


def _neighbours(images: "Tensor") -> "Tensor":
    return images.reshape(-1, 2, *images.shape[1:]).flip(1).reshape(images.shape)


def _mixed(images: "Tensor", parts: int) -> "Tensor":
    mixed = images.int() * parts + _neighbours(images).int() * (_PARTS - parts)
    return ((mixed + _PARTS // 2) // _PARTS).byte()


def _pasted(images: "Tensor", others: "Tensor", box: tuple[slice, slice, slice]) -> "Tensor":
    pasted = images.clone()
    pasted[box] = others[box]
    return pasted


def _averaged(hr: "Tensor", scale: int) -> "Tensor":
    """Return HR reduced by the mean over scale x scale px, rounded to the nearest integer."""
    if scale == 1:
        return hr
    number, height, width, channels = hr.shape
    blocks = hr.reshape(number, height // scale, scale, width // scale, scale, channels)
    return blocks.float().mean((2, 4)).round().byte()
