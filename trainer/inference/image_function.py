"""A network as a function from image to image."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import torch

from srshards.imaging.pixels import Pixels
from trainer.inference.tiles import choose_tile, enlarge_within_memory
from trainer.models import Network

ImageFunction: TypeAlias = Callable[[Pixels], Pixels]  # H x W x 3 uint8 RGB to the same, perhaps enlarged


def as_function(network: Network, device: torch.device, tile: int | Literal["auto"] | None = "auto") -> ImageFunction:
    """H x W x 3 uint8 RGB to scale·H x scale·W x 3 uint8, in tiles of so many px, whole (None), or as fits."""

    def function(image: Pixels) -> Pixels:
        height, width = image.shape[:2]
        tile_px = choose_tile(network, height, width, device) if tile == "auto" else tile
        images = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        output = enlarge_within_memory(network, images, tile_px, network.spec.margin_px, torch.uint8)
        return np.ascontiguousarray(output[0].permute(1, 2, 0).numpy())

    return function
