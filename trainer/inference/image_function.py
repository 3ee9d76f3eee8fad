"""Wrap a network as a function from image to image."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import torch

from srshards.imaging.pixels import Pixels
from trainer.inference.tile_memory import apply_within_memory, choose_tile
from trainer.inference.tiles import TileRule
from trainer.models import Network

ImageFunction: TypeAlias = Callable[[Pixels], Pixels]  # H x W x 3 to scale·H x scale·W x 3, both uint8 RGB


def as_function(network: Network, device: torch.device, tile: int | Literal["auto"] | None = "auto") -> ImageFunction:
    """Return the network as an ImageFunction, applied in tiles of `tile` px, untiled (None), or as memory allows."""

    def function(image: Pixels) -> Pixels:
        height, width = image.shape[:2]
        tile_px = choose_tile(network, height, width, device) if tile == "auto" else tile
        images = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        output = apply_within_memory(network, images, tile_px, TileRule.of(network.spec), torch.uint8)
        return np.ascontiguousarray(output[0].permute(1, 2, 0).numpy())

    return function
