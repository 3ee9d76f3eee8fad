"""Properties of TIFF pixels that Pillow does not expose, or not in every version."""

from typing import Any

from PIL import Image

from srshards.errors import PhotoError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF

_WIDTH, _HEIGHT, _BITS_PER_SAMPLE = 256, 257, 258
_PHOTOMETRIC, _WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 262, 0, 1, 2
_PLANAR, _INTERLEAVED = 284, 1
_EXTRA_SAMPLES, _PREMULTIPLIED = 338, 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) before applying the orientation, which some versions of Pillow do when opening."""
    tags = _tags(image)
    return int(tags[_HEIGHT]), int(tags[_WIDTH])


def bits_per_channel(image: Image.Image) -> int:
    bits = _tags(image).get(_BITS_PER_SAMPLE, (8,))
    return max(bits) if isinstance(bits, tuple) else int(bits)


def white_is_zero(image: Image.Image) -> bool:
    return bool(_tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def refuse_unsupported(image: Image.Image) -> None:
    """Raise PhotoError for 9 to 16 bits unless interleaved 16-bit RGB or grey: decoders return wrong pixels."""
    bits, tags = bits_per_channel(image), _tags(image)
    if not 8 < bits <= 16:
        return
    if bits < 16:
        raise PhotoError(f"{bits} bits per channel: expected 8 or 16")
    plain = tags.get(_PHOTOMETRIC) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
    plain = plain and _PREMULTIPLIED not in tags.get(_EXTRA_SAMPLES, ())
    if not plain or tags.get(_PLANAR, _INTERLEAVED) != _INTERLEAVED:
        raise PhotoError("16-bit TIFF of an unusual layout; save it as interleaved RGB or as PNG")


def _tags(image: Image.Image) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]
