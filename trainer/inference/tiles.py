"""Apply a network to an image of any size in overlapping tiles, without seams.

A tile is the network's input: an inner part, whose output is kept, and a margin around it, whose output is discarded.
With margins as wide as the receptive field, the inner parts equal the output for the complete image up to float
rounding, because kernels sum in an order that depends on the size.
"""

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from srshards.errors import RunError, UsageError

# Networks that fold 2 x 2 or 4 x 4 px into channels need tiles that start on a fold.
ALIGN_PX = 4
_MIN_INNER_PX = 32  # below, nearly all of the work is margins
NOT_FINITE = "the network's output is not finite: its weights are broken, or too large for half precision"


class _Window(NamedTuple):
    """A tile along one axis, in px: its extent from start to end, and the part of it that is kept."""

    start: int
    end: int
    keep_start: int
    keep_end: int


@torch.inference_mode()
def apply_in_tiles(
    model: nn.Module, image: Tensor, tile_px: int | None, margin_px: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the network's output, N x 3 x scale·H x scale·W, on the image's device, not clamped unless uint8.

    `image` is N x 3 x H x W on any device, float in [0, 1] or uint8; its tiles are moved to the model's device. With
    `dtype` uint8 the output is rounded to 0-255 and needs a quarter of the memory.

    `tile_px` is the edge of a tile including both margins; None disables tiling. All tiles have the same size, so that
    kernels and graphs are set up once, except at the bottom and right, where they are up to 3 px smaller if the image
    is not a multiple of 4 px. Margins narrower than the receptive field cause visible seams.

    UsageError if a tile is smaller than its margins; RunError if values that are not finite would be converted to
    uint8.
    """
    height, width = image.shape[2:]
    model_device, model_dtype = _device_and_dtype(model, image)
    output: Tensor | None = None
    for row, column in product(_windows(height, tile_px, margin_px), _windows(width, tile_px, margin_px)):
        tile = image[:, :, row.start : row.end, column.start : column.end].to(model_device)
        network_input = tile.to(model_dtype).div(255) if tile.dtype == torch.uint8 else tile.to(model_dtype)
        tile_output = model(network_input)
        scale = tile_output.shape[2] // tile.shape[2]
        if output is None:
            shape = (*tile_output.shape[:2], height * scale, width * scale)
            output = torch.empty(shape, dtype=dtype, device=image.device)
        top, bottom = ((edge - row.start) * scale for edge in (row.keep_start, row.keep_end))
        left, right = ((edge - column.start) * scale for edge in (column.keep_start, column.keep_end))
        rows, columns = (slice(w.keep_start * scale, w.keep_end * scale) for w in (row, column))
        output[:, :, rows, columns] = _converted(tile_output[:, :, top:bottom, left:right], dtype)
    assert output is not None  # an image has at least one window
    return output


def to_levels(output: Tensor) -> Tensor:
    """Round a network's output, finite and in [0, 1] or beyond, to uint8."""
    return output.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)


def smallest_tile(margin_px: int) -> int:
    """Return the edge in px of the smallest tile that is not nearly all margin, a multiple of 4."""
    return 2 * aligned_up(margin_px) + _MIN_INNER_PX


def check_tile(tile_px: int, margin_px: int) -> None:
    """Raise UsageError if a tile is not larger than its margins."""
    minimum = 2 * aligned_up(margin_px) + ALIGN_PX
    if tile_px < minimum:
        raise UsageError(
            f"--tile {tile_px}: expected {minimum} px or more, because this network needs a margin of {margin_px} px "
            f"on every side; pass --tile auto, or --tile {smallest_tile(margin_px)} or more, which is faster"
        )


def aligned_up(size: int) -> int:
    """Round up to a multiple of 4."""
    return -(-size // ALIGN_PX) * ALIGN_PX


def _windows(size: int, tile_px: int | None, margin_px: int) -> list[_Window]:
    """Return windows that start at multiples of 4 px and whose kept parts cover the axis without overlap."""
    if tile_px is None or size <= tile_px:
        return [_Window(0, size, 0, size)]
    check_tile(tile_px, margin_px)
    margin, tile = aligned_up(margin_px), tile_px // ALIGN_PX * ALIGN_PX
    step = tile - 2 * margin
    last = aligned_up(size - tile)
    starts = [*range(0, last, step), last]
    edges = [0, *(start + tile - margin for start in starts[:-1]), size]
    ends = [*(start + tile for start in starts[:-1]), size]
    return [_Window(*window) for window in zip(starts, ends, edges[:-1], edges[1:], strict=True)]


def _device_and_dtype(model: nn.Module, image: Tensor) -> tuple[torch.device, torch.dtype]:
    """Return those of the model's parameters; a model without any runs on the image's device in float32."""
    parameter = next(model.parameters(), None)
    return (image.device, torch.float32) if parameter is None else (parameter.device, parameter.dtype)


def _converted(output: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype != torch.uint8:
        return output.to(dtype)
    if not bool(torch.isfinite(output).all()):
        raise RunError(NOT_FINITE)
    return to_levels(output)
