"""A decoded photo becomes its HR images, and an HR image all images of its sample."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from shardgen.config import Config
from shardgen.degradation.recipe import Drawn
from shardgen.degradation.sharpen import usm
from shardgen.degrade import enlarge, make_lrs
from shardgen.errors import PhotoError
from shardgen.geometry import Box, boxes
from shardgen.pixels import Pixels, to_pixels
from shardgen.resample import render_hr

_USM = (0.5, 50, 10)  # weight, radius in px, threshold in grey levels, of Real-ESRGAN (arXiv 2107.10833)


class TooSmall(PhotoError):
    """A photo that is smaller than a tile: passed over, not a failure."""


class Crop(NamedTuple):
    """An HR image before it is cropped to a multiple of a scale.

    `pixels` is size x size x 3 uint8; `box` the part of the upright photo that it shows, in the photo's px.
    """

    pixels: Pixels
    box: Box


class Triplet(NamedTuple):
    """uint8 RGB images: `hr` and `up` S x S x 3, each of `lrs` S/scale x S/scale x 3. `up` is the first, enlarged."""

    hr: Pixels
    lrs: tuple[Pixels, ...]
    up: Pixels


def crops(pixels: Pixels, true_size: tuple[int, int], config: Config) -> Iterator[Crop]:
    """The HR images of a photo.

    `pixels` may be the photo at 1/2, 1/4 or 1/8 of its `true_size` (height, width), as the JPEG decoder gives it.
    Raises TooSmall when the photo holds no tile.
    """
    step = config.tile_step or config.size
    in_pixels = list(boxes(pixels.shape[0], pixels.shape[1], config.fit, config.size, step))
    in_photo = list(boxes(*true_size, config.fit, config.size, step))
    if not in_photo:
        raise TooSmall(f"smaller than a tile of {config.size} px")
    for crop, box in zip(in_pixels, in_photo, strict=True):
        part = pixels[crop.y : crop.y + crop.h, crop.x : crop.x + crop.w]
        hr = render_hr(part, config.size)
        yield Crop(sharpened(hr) if config.sharpen_hr else hr, box)


def sharpened(hr: Pixels) -> Pixels:
    """HR as Real-ESRGAN trains on it: sharper than a camera makes it, so that results come out crisp."""
    return to_pixels(usm(hr.astype(np.float32), *_USM))


def is_enlarged(true_size: tuple[int, int], config: Config) -> bool:
    return config.fit != "tile" and min(true_size) < config.size


def make_triplet(hr: Pixels, scale: int, method: str, drawn: list[Drawn] | None = None) -> Triplet:
    """LR images and upsampled image of `hr`, whose edges must be multiples of `scale`."""
    lrs = make_lrs(hr, scale, method, drawn)
    return Triplet(hr, tuple(lrs), enlarge(lrs[0], scale, method))
