"""Decode JPEG with libjpeg-turbo, at full size or 1/2, 1/4 or 1/8, without using padding beyond the photo's edge."""

import simplejpeg

from srshards.errors import PhotoError
from srshards.imaging.pixels import Pixels

# Edge length in px of the smallest coded square (MCU), by chroma subsampling as named by simplejpeg. With any other
# subsampling, libjpeg reduces luma in both directions but chroma in one, so that chroma loses resolution.
_UNITS = {"Gray": 8, "444": 8, "420": 16}


def is_decodable(data: bytes) -> bool:
    """Return whether libjpeg-turbo can decode the JPEG to RGB (not CMYK). PhotoError for unusual chroma subsampling."""
    try:
        return simplejpeg.decode_jpeg_header(data)[2] in ("YCbCr", "Gray", "RGB")
    except (KeyError, ValueError) as error:  # simplejpeg does not know the subsampling; libjpeg-turbo does not
        if isinstance(error, KeyError) or "subsampling" in str(error):
            raise PhotoError("JPEG with unusual chroma subsampling; save it as 4:4:4 or 4:2:0, or as PNG") from error
        raise


def decode(data: bytes, reduction: int) -> tuple[Pixels, int]:
    """Decode to H x W x 3 at 1/reduction, or the next larger size that is exact. Return pixels and actual reduction."""
    height, width, _, subsampling = simplejpeg.decode_jpeg_header(data)
    while reduction > 1 and not _may_be_reduced(height, width, subsampling, reduction):
        reduction //= 2
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, "RGB", min_height=height // reduction, min_width=width // reduction, min_factor=reduction
    )
    return pixels, reduction


def _may_be_reduced(height: int, width: int, subsampling: str, reduction: int) -> bool:
    """Return whether chroma keeps its resolution and no padding beyond the edge affects a visible pixel.

    A pixel at reduced size is computed from a complete 8 x 8 block, whose padding at the edge is chosen by the encoder.
    """
    if subsampling not in _UNITS:
        return False
    # At 1/2 of 4:2:0, chroma is decoded at full size, and luma in complete blocks of 8 px.
    unit = 8 if subsampling == "420" and reduction == 2 else _UNITS[subsampling]
    return height % unit == 0 and width % unit == 0
