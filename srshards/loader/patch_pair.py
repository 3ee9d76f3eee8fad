"""An HR patch and the matching network input."""

from typing import NamedTuple

from srshards.imaging.pixels import Pixels


class PatchPair(NamedTuple):
    """An HR patch and the matching input patch, as writable arrays.

    PyTorch's default collation stacks pairs into a pair of N x p x p x 3 and N x q x q x 3 uint8 tensors.

    Attributes:
        hr: HR patch, p x p x 3 uint8 RGB.
        input: input patch, q x q x 3 uint8 RGB; q is p / scale for LR, and p for the upsampled image.

    Examples:
        >>> import srshards
        >>> pair = srshards.PatchDataset(shards, patch_size=16)[0]
        >>> pair.hr.shape, pair.input.shape
        ((16, 16, 3), (8, 8, 3))
    """

    hr: Pixels
    input: Pixels
