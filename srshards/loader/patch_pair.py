"""An HR patch and the matching network input."""

from typing import NamedTuple

from srshards.imaging.pixels import Pixels


class PatchPair(NamedTuple):
    """An HR patch and the matching input patch: p x p x 3 and q x q x 3 uint8 RGB arrays.

    q is p / scale for LR, and p for the upsampled image. Both are writable. PyTorch's default collation stacks pairs
    into a pair of N x p x p x 3 and N x q x q x 3 uint8 tensors.

    Examples:
        >>> import srshards
        >>> pair = srshards.PatchDataset(shards, patch_size=16)[0]
        >>> pair.hr.shape, pair.input.shape
        ((16, 16, 3), (8, 8, 3))
    """

    hr: Pixels
    input: Pixels
