"""A decoded photo becomes its HR images, and an HR image all images of its sample."""

from typing import NamedTuple

import numpy as np

from shardgen.degradation.degrade import enlarge, make_lrs
from shardgen.degradation.recipe import Drawn
from shardgen.degradation.sharpen import usm
from shardgen.planning.boxes import Box, boxes, reduction
from shardgen.planning.config import Config
from srshards.errors import PhotoError
from srshards.imaging.photo import DecodedPhoto, decode_photo
from srshards.imaging.pixels import Pixels, to_pixels
from srshards.imaging.resample import render_hr

_USM = (0.5, 50, 10)  # weight, radius in px, threshold in grey levels, of Real-ESRGAN (arXiv 2107.10833)


class TooSmall(PhotoError):
    """A photo that is smaller than a tile: passed over, not a failure."""


class HrImage(NamedTuple):
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


def decode_reduced(data: bytes, config: Config) -> DecodedPhoto:
    """The photo in a file's bytes, at the least share of its size that HR needs. PhotoError as `decode_photo`."""
    return decode_photo(data, lambda height, width: reduction(height, width, config.fit, config.size))


def hr_boxes(photo: DecodedPhoto, config: Config) -> list[Box]:
    """The parts of the photo that become HR images, in its own px. Raises TooSmall when it holds no tile."""
    found = list(boxes(*photo.true_size, config.fit, config.size, config.tile_step or config.size))
    if not found:
        raise TooSmall(f"smaller than a tile of {config.size} px")
    return found


def render_crop(photo: DecodedPhoto, box: Box, config: Config) -> HrImage:
    x, y, width, height = (edge // photo.reduction for edge in box)
    hr = render_hr(photo.rgb[y : y + height, x : x + width], config.size)
    return HrImage(sharpened(hr) if config.sharpen_hr else hr, box)


def sharpened(hr: Pixels) -> Pixels:
    """HR as Real-ESRGAN trains on it: sharper than a camera makes it, so that results come out crisp."""
    return to_pixels(usm(hr.astype(np.float32), *_USM))


def is_enlarged(true_size: tuple[int, int], config: Config) -> bool:
    return config.fit != "tile" and min(true_size) < config.size


def make_triplet(hr: Pixels, scale: int, method: str, drawn: list[Drawn] | None = None) -> Triplet:
    """LR images and upsampled image of `hr`, whose edges must be multiples of `scale`."""
    lrs = make_lrs(hr, scale, method, drawn)
    return Triplet(hr, tuple(lrs), enlarge(lrs[0], scale, method))
