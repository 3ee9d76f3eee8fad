"""Apply a network to an image of any size in overlapping tiles, without seams.

A tile is the network's input: an inner part, whose output is kept, and a margin around it, whose output is discarded.
With margins as wide as the receptive field, the inner parts equal the output for the complete image up to float
rounding, because kernels sum in an order that depends on the size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from srshards.errors import RunError, UsageError
from trainer.inference.pass_progress import following_passes
from trainer.models import NetworkSpec

_ALIGN_PX = 4  # of tiles for any network: rows of aligned sizes are faster
_MIN_INNER_PX = 32  # below, nearly all of the work is margins
NOT_FINITE = "the network's output is not finite: its weights are broken, or too large for half precision"


@dataclass(frozen=True)
class TileRule:
    """How an image may be cut into tiles for a network: the margin that a tile needs, and the grid that it lies on.

    `margin_px` is on every side, `multiple_px` the network's `NetworkSpec.multiple_px`: tiles start at its multiples,
    so that the windows of a tile, or the blocks that it pools or unshuffles, are those of the complete image.
    """

    margin_px: int
    multiple_px: int = 1

    @classmethod
    def of(cls, spec: NetworkSpec) -> TileRule:
        return cls(spec.margin_px, spec.multiple_px)

    @property
    def align_px(self) -> int:
        """The grid that tiles lie on: their starts, margins and sizes are multiples of it."""
        return math.lcm(_ALIGN_PX, self.multiple_px)

    @property
    def aligned_margin_px(self) -> int:
        return self.aligned_up(self.margin_px)

    @property
    def minimum_px(self) -> int:
        """The edge of the smallest tile that is larger than its margins."""
        return 2 * self.aligned_margin_px + self.align_px

    @property
    def smallest_px(self) -> int:
        """The edge of the smallest tile that is not nearly all margin."""
        return 2 * self.aligned_margin_px + self.aligned_up(_MIN_INNER_PX)

    def aligned_up(self, size: int) -> int:
        """Round up to the grid."""
        return -(-size // self.align_px) * self.align_px

    def aligned_down(self, size: int) -> int:
        """Round down to the grid."""
        return size // self.align_px * self.align_px

    def check(self, tile_px: int) -> None:
        """Raise UsageError if a tile of this edge is not larger than its margins."""
        if tile_px < self.minimum_px:
            windows = f", and works in windows of {self.multiple_px} px" if self.multiple_px > _ALIGN_PX else ""
            raise UsageError(
                f"--tile {tile_px}: expected {self.minimum_px} px or more, because this network needs a margin of "
                f"{self.margin_px} px on every side{windows}; pass --tile auto, or --tile {self.smallest_px} or more, "
                "which is faster"
            )


class _Window(NamedTuple):
    """A tile along one axis, in px: its extent from start to end, and the part of it that is kept."""

    start: int
    end: int
    keep_start: int
    keep_end: int


@torch.inference_mode()
def apply_in_tiles(
    model: nn.Module,
    image: Tensor,
    tile_px: int | None,
    rule: TileRule,
    dtype: torch.dtype = torch.float32,
    on_progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Return the network's output, N x 3 x scale·H x scale·W, on the image's device, not clamped unless uint8.

    `image` is N x 3 x H x W on any device, float in [0, 1] or uint8; its tiles are moved to the model's device. With
    `dtype` uint8 the output is rounded to 0-255 and needs a quarter of the memory. The output is in channels_last
    layout.

    `tile_px` is the largest edge of a tile, including both margins; None disables tiling. All tiles have the same size,
    so that kernels and graphs are set up once, except at the bottom and right, where they are smaller if the image is
    not a multiple of the rule's grid, 4 px or more. Margins narrower than the receptive field cause visible seams.

    `on_progress` gets the share of the image that is done, in (0, 1], after each convolution and each tile.

    UsageError if a tile is smaller than its margins; RunError if values that are not finite would be converted to
    uint8.
    """
    height, width = image.shape[2:]
    model_device, model_dtype = _device_and_dtype(model, image)
    output: Tensor | None = None
    windows = list(product(_windows(height, tile_px, rule), _windows(width, tile_px, rule)))
    kept_px = 0
    with following_passes(model, on_progress) as follow:
        for row, column in windows:
            tile = image[:, :, row.start : row.end, column.start : column.end].to(model_device)
            tile_kept_px = (row.keep_end - row.keep_start) * (column.keep_end - column.keep_start)
            follow(tile, kept_px / (height * width), (kept_px + tile_kept_px) / (height * width))
            tile_output = model(_network_input(tile, model_dtype))
            scale = tile_output.shape[2] // tile.shape[2]
            if output is None:
                shape = (*tile_output.shape[:2], height * scale, width * scale)
                output = torch.empty(shape, dtype=dtype, device=image.device, memory_format=torch.channels_last)
            top, bottom = ((edge - row.start) * scale for edge in (row.keep_start, row.keep_end))
            left, right = ((edge - column.start) * scale for edge in (column.keep_start, column.keep_end))
            rows, columns = (slice(w.keep_start * scale, w.keep_end * scale) for w in (row, column))
            output[:, :, rows, columns] = _converted(tile_output[:, :, top:bottom, left:right], dtype)
            kept_px += tile_kept_px
            if on_progress:
                on_progress(kept_px / (height * width))
    assert output is not None  # an image has at least one window
    return output


def to_levels(output: Tensor) -> Tensor:
    """Round a network's output, finite and in [0, 1] or beyond, to uint8."""
    return output.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)


def _windows(size: int, tile_px: int | None, rule: TileRule) -> list[_Window]:
    """Return windows that start on the grid of the rule and whose kept parts cover the axis without overlap.

    They are as few as `tile_px` allows, and then as small as that number allows, so that they overlap by little more
    than their margins.
    """
    if tile_px is None or size <= tile_px:
        return [_Window(0, size, 0, size)]
    rule.check(tile_px)
    margin, largest = rule.aligned_margin_px, rule.aligned_down(tile_px)
    count = -(-(size - 2 * margin) // (largest - 2 * margin))
    step = rule.aligned_up(-(-(size - 2 * margin) // count))
    tile = step + 2 * margin
    last = rule.aligned_up(size - tile)
    starts = [*range(0, last, step), last]
    edges = [0, *(start + tile - margin for start in starts[:-1]), size]
    ends = [*(start + tile for start in starts[:-1]), size]
    return [_Window(*window) for window in zip(starts, ends, edges[:-1], edges[1:], strict=True)]


def _device_and_dtype(model: nn.Module, image: Tensor) -> tuple[torch.device, torch.dtype]:
    """Return those of the model's parameters; a model without any runs on the image's device in float32."""
    parameter = next(model.parameters(), None)
    return (image.device, torch.float32) if parameter is None else (parameter.device, parameter.dtype)


def _network_input(tile: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a tile to the network's dtype, uint8 to [0, 1]; on a CPU in channels_last layout.

    Networks then compute in that layout throughout. In NCHW, each convolution on a CPU would first reorder its input.
    """
    layout = torch.channels_last if tile.device.type == "cpu" else torch.contiguous_format
    images = tile.to(dtype, memory_format=layout)
    return images.div_(255) if tile.dtype == torch.uint8 else images


def _converted(output: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype != torch.uint8:
        return output.to(dtype)
    # The extremes are not finite if any value is not, and take a fifth of the time of checking each value.
    if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(output)):
        raise RunError(NOT_FINITE)
    return to_levels(output)
