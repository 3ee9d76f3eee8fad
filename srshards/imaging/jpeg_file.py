"""JPEG decoded by libjpeg-turbo, in full or at 1/2, 1/4 or 1/8, such that it shows the photo's own pixels alone."""

import simplejpeg

from srshards.errors import PhotoError
from srshards.imaging.pixels import Pixels

# Edge in px of the least square that a JPEG is coded in, by chroma subsampling as simplejpeg names it. With any other,
# libjpeg reduces luma in both directions and chroma in one, which then has a fraction of the resolution that it should.
_UNITS = {"Gray": 8, "444": 8, "420": 16}


def is_decodable(data: bytes) -> bool:
    """Whether libjpeg-turbo gives its RGB: not of CMYK, with Adobe's inversions. PhotoError for odd subsampling."""
    try:
        return simplejpeg.decode_jpeg_header(data)[2] in ("YCbCr", "Gray", "RGB")
    except (KeyError, ValueError) as error:  # a number that simplejpeg has no name for; none that libjpeg-turbo has
        if isinstance(error, KeyError) or "subsampling" in str(error):
            raise PhotoError("JPEG with unusual chroma subsampling: save it as 4:4:4 or 4:2:0, or as PNG") from error
        raise


def decode(data: bytes, reduction: int) -> tuple[Pixels, int]:
    """H x W x 3 at 1/reduction, or at the next larger share that gives what the photo shows; and which it is."""
    height, width, _, subsampling = simplejpeg.decode_jpeg_header(data)
    while reduction > 1 and not _may_be_reduced(height, width, subsampling, reduction):
        reduction //= 2
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, "RGB", min_height=height // reduction, min_width=width // reduction, min_factor=reduction
    )
    return pixels, reduction


def _may_be_reduced(height: int, width: int, subsampling: str, reduction: int) -> bool:
    """Whether colour keeps its resolution, and no pixel beyond the photo's edge goes into one that is seen.

    A pixel at a share of the size comes from its whole block of 8 x 8, which encoders fill up as they like at the edge.
    """
    if subsampling not in _UNITS:
        return False
    # At 1/2 of 4:2:0, chroma is decoded in full, and luma has whole blocks of 8 px.
    unit = 8 if subsampling == "420" and reduction == 2 else _UNITS[subsampling]
    return height % unit == 0 and width % unit == 0
