"""Derive HR images from a decoded photo, and all images of a sample from its HR image."""

from typing import NamedTuple

import numpy as np

from shardgen.degradation.degrade import make_lrs
from shardgen.degradation.recipe import DrawnSteps
from shardgen.degradation.sharpen import usm
from shardgen.planning.boxes import Box, boxes, reduction
from shardgen.planning.config import Config
from srshards.imaging.photo import DecodedPhoto, decode_photo
from srshards.imaging.pixels import Pixels, to_pixels
from srshards.imaging.resample import render_hr
from srshards.imaging.upsampling import upsample

_USM = (0.5, 50, 10)  # weight, radius in px, threshold in grey levels: as Real-ESRGAN (arXiv 2107.10833)


class HrImage(NamedTuple):
    """An HR image before cropping to a multiple of a scale.

    `pixels` is size x size x 3 uint8; `box` is the part of the upright photo that it shows, in px of the photo.
    """

    pixels: Pixels
    box: Box


class Triplet(NamedTuple):
    """The uint8 RGB images of a sample: `hr` and `up` S x S x 3, each of `lrs` S/scale x S/scale x 3.

    `up` is the first LR image, upsampled.
    """

    hr: Pixels
    lrs: tuple[Pixels, ...]
    up: Pixels


def decode_reduced(data: bytes, config: Config) -> DecodedPhoto:
    """Decode a photo at the smallest size sufficient for HR, converted to sRGB if so configured.

    PhotoError as in `decode_photo`.
    """
    return decode_photo(
        data,
        lambda height, width: reduction(height, width, config.fit, config.size),
        to_srgb=config.icc == "convert",
    )


def hr_boxes(photo: DecodedPhoto, config: Config) -> list[Box]:
    """Return the parts of the photo that become HR images, in px of the photo."""
    return list(boxes(*photo.true_size, config.fit, config.size, config.tile_step or config.size))


def render_crop(photo: DecodedPhoto, box: Box, config: Config) -> HrImage:
    """Return the HR image of a box of the photo, sharpened if so configured."""
    x, y, width, height = (edge // photo.reduction for edge in box)
    hr = render_hr(photo.rgb[y : y + height, x : x + width], config.size)
    return HrImage(sharpened(hr) if config.sharpen_hr else hr, box)


def sharpened(hr: Pixels) -> Pixels:
    """Sharpen HR as Real-ESRGAN does for training, so that networks give crisp results."""
    return to_pixels(usm(hr.astype(np.float32), *_USM))


def is_enlarged(true_size: tuple[int, int], config: Config) -> bool:
    """Return whether a photo of this (height, width) in px is upscaled to HR."""
    return config.fit != "tile" and min(true_size) < config.size


def make_triplet(hr: Pixels, scale: int, method: str, drawn: list[DrawnSteps] | None = None) -> Triplet:
    """Return `hr` with its LR images and upsampled image; the edges of `hr` must be multiples of `scale`."""
    lrs = make_lrs(hr, scale, method, drawn)
    return Triplet(hr, tuple(lrs), upsample(lrs[0], scale, method))
