"""Refuse pairs that cannot match by the sizes or the colour profiles of their images."""

from shardgen.planning.boxes import Box
from srshards.errors import PhotoError
from srshards.imaging.photo import DecodedPhoto


def matched_box(hr: tuple[int, int], lr: tuple[int, int], scale: int) -> Box:
    """Return the part of HR that LR shows, from the (height, width) of both in px: LR's size times the scale.

    At the right and bottom, HR may exceed it by less than `scale` px, because most tools round LR's size down.
    PhotoError, with both sizes, for any other ratio.
    """
    (height, width), (lr_height, lr_width) = hr, lr
    extra = height - lr_height * scale, width - lr_width * scale
    if all(0 <= px < scale for px in extra):
        return Box(0, 0, lr_width * scale, lr_height * scale)
    sizes = f"HR is {width} x {height} px, but LR {lr_width} x {lr_height} px"
    if lr_height > height or lr_width > width:
        raise PhotoError(f"{sizes}: LR is larger than HR; swap --hr and --lr if they are reversed")
    if all(0 <= px < scale for px in (width - lr_height * scale, height - lr_width * scale)):
        raise PhotoError(
            f"{sizes}: one is rotated by 90 degrees against the other, e.g. by an EXIF orientation tag that only one "
            "has; rotate one of them, or remove the tag"
        )
    if min(height, width) < scale:
        raise PhotoError(f"{sizes}: HR is smaller than one LR pixel at {scale}x; remove the pair")
    if all(abs(px) < 2 * scale for px in extra):
        expected = f"{width // scale} x {height // scale} px"
        raise PhotoError(f"{sizes}: expected LR of {expected} at {scale}x; pairs are not resized, so make LR again")
    raise PhotoError(
        f"{sizes}, not {scale}x: LR seems to be made from a resized or cropped copy of HR; make both anew from the "
        "photos with `generate`"
    )


def require_same_profiles(hr: DecodedPhoto, lr: DecodedPhoto) -> None:
    """Raise PhotoError if one image was converted to sRGB by its colour profile, and the other has no profile at all.

    Nobody can tell whether the one without it has the same colour values, from a program that drops profiles, or sRGB.
    """
    for name, one, other_name, other in (("HR", hr, "LR", lr), ("LR", lr, "HR", hr)):
        if one.converted_from is not None and other.converted_from is None and other.icc_profile is None:
            raise PhotoError(
                f"{name} has the colour profile {one.converted_from}, but {other_name} has none; pass --icc ignore if "
                "both have the same colour values, or convert both to sRGB"
            )
