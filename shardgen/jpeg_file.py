"""JPEG decoded by libjpeg-turbo, in full or at 1/2, 1/4 or 1/8, such that it shows the photo's own pixels alone."""

import simplejpeg

from shardgen.pixels import Pixels

# Width and height in px of the least unit that a JPEG is coded in, by chroma subsampling as simplejpeg names it.
_UNITS = {
    "Gray": (8, 8),
    "444": (8, 8),
    "422": (16, 8),
    "420": (16, 16),
    "440": (8, 16),
    "411": (32, 8),
    "441": (8, 32),
}


def is_decodable(data: bytes) -> bool:
    """Whether libjpeg-turbo gives its RGB: not of CMYK, with Adobe's inversions."""
    return simplejpeg.decode_jpeg_header(data)[2] in ("YCbCr", "Gray", "RGB")


def decode(data: bytes, reduction: int) -> tuple[Pixels, int]:
    """H x W x 3 at 1/reduction, or at the next larger share that no padding reaches; and which it is."""
    height, width, _, subsampling = simplejpeg.decode_jpeg_header(data)
    while reduction > 1 and _padding_is_seen(height, width, subsampling, reduction):
        reduction //= 2
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, "RGB", min_height=height // reduction, min_width=width // reduction, min_factor=reduction
    )
    return pixels, reduction


def _padding_is_seen(height: int, width: int, subsampling: str, reduction: int) -> bool:
    """Whether pixels beyond the photo's edge go into a JPEG decoded at 1/reduction.

    A pixel at a share of the size comes from its whole block of 8 x 8, which encoders fill up as they like at the edge.
    """
    unit_width, unit_height = _UNITS.get(subsampling, (0, 0))
    if not unit_width:
        return True
    if subsampling == "420" and reduction == 2:  # chroma then is decoded in full, luma has whole blocks of 8 px
        unit_width = unit_height = 8
    return bool(height % unit_height or width % unit_width)
