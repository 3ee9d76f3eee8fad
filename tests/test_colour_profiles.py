"""Embedded ICC profiles: converted to sRGB, left alone, or impossible to apply."""

import zlib
from collections.abc import Callable
from typing import Any

import icc_profiles
import numpy as np
import plain_files
import pytest
from icc_profiles import adobe_rgb, cmyk_profile, display_p3, gamma, grey_profile, prophoto, rgb_profile, srgb
from odd_photos import noise, png_16, png_chunk, raw_png, saved, smooth
from PIL import Image, ImageCms, features

from srshards.errors import PhotoError
from srshards.imaging.photo import decode_photo

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")
WIDE = {"Adobe RGB (1998)": adobe_rgb(), "Display P3": display_p3(), "ProPhoto RGB": prophoto()}
GREY_GAMMA = grey_profile("Gray Gamma 2.2", gamma(2.2))
SRGB_VARIANTS = {
    "1024 points": srgb(1024),
    "42 points": srgb(42),
    "20 points": srgb(20),
    "another name": srgb(name="c2"),
    "version 4": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
}


def ink_colour(c: int, m: int, y: int, k: int) -> tuple[float, float, float]:
    """L*, a* and b* of solid inks: on black, they only add darkness."""
    if k:
        return 40 - 5 * (c + m + y), 0, 0
    return 100 - 12 * c - 20 * m - 5 * y, -10 * c + 20 * m - 2 * y, -15 * c - 5 * m + 25 * y


INKS = cmyk_profile("Press", ink_colour)


def photo(height: int = 40, width: int = 52) -> Image.Image:
    return Image.fromarray(smooth(height, width))


def cmyk(inks: np.ndarray) -> Image.Image:
    return Image.frombuffer("CMYK", inks.shape[1::-1], inks.astype(np.uint8).tobytes(), "raw", "CMYK", 0, 1)


def assert_near(found: np.ndarray, expected: np.ndarray, tolerance: int = 1) -> None:
    assert found.shape == expected.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= tolerance


def assert_untouched(data: bytes, problem: str | None = None) -> None:
    """Assert that the photo has the pixels of its stored values, and that a profile has this problem, or none."""
    found, plain = decode_photo(data, to_srgb=True), decode_photo(data)
    assert np.array_equal(found.rgb, plain.rgb) and found.converted_from is None
    assert found.profile_problem == problem and plain.profile_problem is None


# ---- conversion


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("image_format", FORMATS)
def test_colour_is_converted(image_format: str, name: str) -> None:
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "AVIF": {"speed": 10}}.get(image_format, {})
    data = saved(photo(), image_format, icc_profile=WIDE[name], **options)
    found, stored = decode_photo(data, to_srgb=True), decode_photo(data)
    assert found.converted_from == name and found.profile_problem is None and found.icc_profile is None
    assert_near(found.rgb, icc_profiles.to_srgb(stored.rgb, WIDE[name]))
    assert stored.icc_profile == WIDE[name] == plain_files.icc_profile(data) and stored.converted_from is None
    assert np.abs(found.rgb.astype(int) - stored.rgb).max() > 10


PATCHES = np.array([[(128, 64, 32), (20, 30, 40), (200, 180, 40), (60, 200, 90), (250, 250, 250), (10, 10, 10)]])
INK_PATCHES = [(128, 64, 32, 0), (20, 30, 40, 128), (200, 180, 40, 10), (0, 200, 90, 60), (0, 0, 0, 255), (255,) * 4]
# By littlecms' own program, version 2.14: `tificc -t1 -b -c2` (relative colorimetric, black point compensation)
TIFICC = {
    "Adobe RGB (1998)": [(146, 62, 24), (5, 24, 36), (209, 181, 0), (0, 201, 80), (250, 250, 250), (3, 3, 3)],
    "Display P3": [(138, 59, 21), (17, 30, 41), (204, 179, 0), (0, 203, 73), (250, 250, 250), (10, 10, 10)],
    "ProPhoto RGB": [(191, 53, 29), (0, 42, 55), (245, 189, 0), (0, 228, 79), (251, 251, 251), (10, 10, 10)],
    "Gray Gamma 2.2": [(129,) * 3, (12,) * 3, (201,) * 3, (57,) * 3, (250,) * 3, (3,) * 3],
    "Press": [(215, 220, 231), (158, 160, 160), (180, 175, 201), (192, 164, 171), (75, 75, 75), (0, 0, 0)],
}


@pytest.mark.parametrize("name", TIFICC)
def test_patches_equal_those_of_tificc(name: str) -> None:
    profile = {**WIDE, "Gray Gamma 2.2": GREY_GAMMA, "Press": INKS}[name]
    colours = Image.fromarray(PATCHES.astype(np.uint8))
    greys = Image.fromarray(PATCHES[:, :, 0].astype(np.uint8))
    patches = {"Gray Gamma 2.2": greys, "Press": cmyk(np.array([INK_PATCHES]))}.get(name, colours)
    found = decode_photo(saved(patches, "TIFF", icc_profile=profile), to_srgb=True)
    assert found.converted_from == name
    assert_near(found.rgb, np.array([TIFICC[name]]))


@pytest.mark.parametrize("mode", ["P", "RGBA", "L"])
def test_profile_of_colour_applies_to_other_modes(mode: str) -> None:
    data = saved(photo().convert(mode), "PNG", icc_profile=adobe_rgb())
    found, stored = decode_photo(data, to_srgb=True), decode_photo(data)
    assert found.converted_from == "Adobe RGB (1998)"
    assert_near(found.rgb, icc_profiles.to_srgb(stored.rgb, adobe_rgb()))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
def test_grey_is_converted(image_format: str) -> None:
    data = saved(photo().convert("L"), image_format, icc_profile=GREY_GAMMA)
    found = decode_photo(data, to_srgb=True)
    assert found.is_grey and found.converted_from == "Gray Gamma 2.2"
    assert_near(found.rgb, icc_profiles.to_srgb(decode_photo(data).rgb, GREY_GAMMA))


@pytest.mark.parametrize(("channels", "profile"), [(1, GREY_GAMMA), (1, prophoto()), (3, prophoto())])
def test_16_bits_are_rounded_before_the_conversion(channels: int, profile: bytes) -> None:
    levels = noise(30, 41, channels, 65535).astype(np.uint16)
    data = png_16(levels, png_chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)))
    expected = icc_profiles.to_srgb(np.rint(levels / 257).astype(np.uint8), profile)
    assert_near(decode_photo(data, to_srgb=True).rgb, expected)


def test_colour_is_converted_before_alpha() -> None:
    rgba = np.dstack([smooth(40, 52), noise(40, 52, 1, 255)[..., 0]]).astype(np.uint8)
    data = saved(Image.fromarray(rgba), "PNG", icc_profile=adobe_rgb())
    converted = icc_profiles.to_srgb(rgba[..., :3], adobe_rgb())
    over_black = np.rint(converted * (rgba[..., 3:] / 255))
    assert_near(decode_photo(data, to_srgb=True).rgb, over_black)
    kept = decode_photo(data, to_srgb=True, keep_alpha=True)
    assert kept.alpha is not None and np.array_equal(kept.alpha, rgba[..., 3])
    assert_near(kept.rgb, converted)


def test_jpeg_is_reduced_before_the_conversion() -> None:
    data = saved(photo(128, 160), "JPEG", icc_profile=adobe_rgb())
    found, stored = (decode_photo(data, lambda height, width: 4, to_srgb=to_srgb) for to_srgb in (True, False))
    assert found.reduction == 4 and found.rgb.shape == (32, 40, 3)
    assert_near(found.rgb, icc_profiles.to_srgb(stored.rgb, adobe_rgb()))


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_solid_inks_have_their_measured_colours(image_format: str) -> None:
    """Full black becomes (0, 0, 0), by black point compensation."""
    solid = [tuple(255 * (number >> bit & 1) for bit in (3, 2, 1, 0)) for number in range(16)]
    blocks = np.array(solid, np.uint8).reshape(4, 4, 4).repeat(16, 0).repeat(16, 1)
    options = {"quality": 100} if image_format == "JPEG" else {}
    data = saved(cmyk(blocks), image_format, icc_profile=INKS, **options)
    found = decode_photo(data, to_srgb=True)
    black = ink_colour(1, 1, 1, 1)
    expected = [icc_profiles.lab_to_srgb(ink_colour(*(ink // 255 for ink in inks)), black) for inks in solid]
    assert found.converted_from == "Press"
    assert_near(found.rgb[8::16, 8::16].reshape(16, 3), np.array(expected), tolerance=2)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("variant", SRGB_VARIANTS)
def test_photo_in_srgb_is_untouched(image_format: str, variant: str) -> None:
    assert_untouched(saved(photo(), image_format, icc_profile=SRGB_VARIANTS[variant]))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
def test_grey_photo_with_the_curve_of_srgb_is_untouched(image_format: str) -> None:
    profile = grey_profile("sGrey", icc_profiles.srgb_curve(1024))
    assert_untouched(saved(photo().convert("L"), image_format, icc_profile=profile))


def test_16_bit_photo_in_srgb_is_untouched() -> None:
    levels = noise(30, 41, 4, 65535).astype(np.uint16)
    assert_untouched(png_16(levels, png_chunk(b"iCCP", b"x\0\0" + zlib.compress(srgb()))))


def test_primaries_of_srgb_with_another_curve_are_converted() -> None:
    profile = rgb_profile("sRGB", icc_profiles.SRGB, (0.3127, 0.3290), gamma(2.2))
    assert decode_photo(saved(photo(), "PNG", icc_profile=profile), to_srgb=True).converted_from == "sRGB"


def test_name_of_a_profile_is_one_line() -> None:
    profile = rgb_profile("My\n\x1bscreen  " + "x" * 200, icc_profiles.SRGB, (0.3127, 0.3290), gamma(1.8))
    name = decode_photo(saved(photo(), "PNG", icc_profile=profile), to_srgb=True).converted_from
    assert name == "My screen " + "x" * 90
    no_text = profile.replace(b"desc\0\0\0\0", b"none\0\0\0\0")
    not_ascii = profile.replace(b"screen", b"\x83" * 6)  # Pillow cannot decode it
    for nameless in (no_text, not_ascii):
        assert decode_photo(saved(photo(), "PNG", icc_profile=nameless), to_srgb=True).converted_from == "unnamed"


# ---- profiles that cannot be applied


def without_tag(profile: bytes, tag: bytes) -> bytes:
    return profile.replace(tag, b"gone", 1)


LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
DAMAGED: dict[str, bytes] = {
    "one byte": b"x",
    "text": b"This is not a profile. " * 20,
    "header only": adobe_rgb()[:128],
    "truncated": display_p3()[:400],
    "control characters for a colour space": adobe_rgb().replace(b"RGB ", b"\x1b[2J", 1),
    "without a tone curve": without_tag(adobe_rgb(), b"gTRC"),
    "without a table": without_tag(INKS, b"A2B1"),
}


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("image_format", FORMATS)
def test_damaged_profile_is_reported_and_not_applied(image_format: str, what: str) -> None:
    assert_untouched(saved(photo(), image_format, icc_profile=DAMAGED[what]), "damaged colour profile")


@pytest.mark.parametrize(
    ("mode", "profile", "problem"),
    [
        ("RGB", INKS, "colour profile for CMYK, but the image is RGB"),
        ("RGB", GREY_GAMMA, "colour profile for GRAY, but the image is RGB"),
        ("RGB", LAB, "colour profile for Lab, but the image is RGB"),
        ("L", INKS, "colour profile for CMYK, but the image is GRAY"),
        ("CMYK", adobe_rgb(), "colour profile for RGB, but the image is CMYK"),
        ("CMYK", srgb(), "colour profile for RGB, but the image is CMYK"),
    ],
)
@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_profile_of_another_colour_space_is_reported(
    image_format: str, mode: str, profile: bytes, problem: str
) -> None:
    assert_untouched(saved(photo().convert(mode), image_format, icc_profile=profile), problem)


def test_jpeg_with_a_missing_part_of_its_profile_is_damaged() -> None:
    data = saved(photo(), "JPEG", icc_profile=adobe_rgb() + bytes(100_000))
    first = data.index(b"ICC_PROFILE\0")
    second = data.index(b"ICC_PROFILE\0", first + 1)
    length = int.from_bytes(data[second - 2 : second], "big")
    for to_srgb in (True, False):
        with pytest.raises(PhotoError, match=r"damaged JPEG .*bad ICC marker"):
            decode_photo(data[: second - 4] + data[second - 2 + length :], to_srgb=to_srgb)


@pytest.mark.parametrize("content", [b"x\0\0not deflated", b"x\0\0" + zlib.compress(adobe_rgb())[:90], b""])
def test_png_with_a_damaged_profile_chunk(content: bytes) -> None:
    raw = b"".join(b"\0" + row.tobytes() for row in smooth(20, 30))
    assert_untouched(raw_png((20, 30), 8, 2, raw, png_chunk(b"iCCP", content)), "damaged colour profile")


def test_huge_profile_is_reported() -> None:
    data = saved(photo(), "TIFF", icc_profile=adobe_rgb() + bytes(16 << 20))
    problem = f"colour profile of {len(adobe_rgb()) + (16 << 20):,} bytes, the limit is 16,777,216 bytes"
    assert_untouched(data, problem)


def test_pillow_without_littlecms(monkeypatch: pytest.MonkeyPatch) -> None:
    data, plain = saved(photo(), "PNG", icc_profile=adobe_rgb()), saved(photo(), "PNG")
    has: Callable[[str], bool | None] = features.check
    monkeypatch.setattr(features, "check", lambda feature: feature != "littlecms2" and has(feature))
    with pytest.raises(PhotoError, match=r"this build of Pillow has no littlecms; install a wheel from PyPI"):
        decode_photo(data, to_srgb=True)
    assert np.array_equal(decode_photo(data).rgb, decode_photo(plain, to_srgb=True).rgb)
