"""Decoding a photo to upright 8-bit RGB, or rejecting it with a reason."""

import io
import os
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import cv2
import numpy as np
import odd_photos
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odd_photos import bomb, png_16, png_chunk, raw_png, saved
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from shardgen.planning.boxes import reduction
from srshards.errors import PhotoError
from srshards.imaging import photo
from srshards.imaging.photo import DecodedPhoto, decode_photo, read_bytes, upright_size, upright_size_of_file

Array = NDArray[np.generic]
ORIENTATIONS = range(1, 9)
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
EXIF_ORIENTATION = 0x0112


# ---- files that no library writes


def colours(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """H x W x 3 uint8: slopes of different colours with texture, without any symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    slopes = np.stack([x * 200 / width, y * 200 / height, (x + y) * 200 / (width + height)], axis=-1)
    return (slopes + np.random.default_rng(seed).integers(0, 50, slopes.shape)).astype(np.uint8)


def levels_16(height: int, width: int, channels: int, seed: int = 0) -> NDArray[np.uint16]:
    """H x W x channels uint16: uniform, so that large images contain every residue modulo 257."""
    return np.random.default_rng(seed).integers(0, 65536, (height, width, channels), dtype=np.uint16)


def tiff(pixels: Array, *, photometric: int | None = None, **options: Any) -> bytes:
    """Encode H x W x channels of any dtype as an uncompressed TIFF; alpha is unassociated."""
    channels, size = pixels.shape[2], pixels.dtype.itemsize
    if photometric is None:
        photometric = 1 if channels < 3 else 2
    options |= {"extra": 2} if channels in (2, 4) else {}
    options["sample_format"] = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    return odd_photos.tiff([pixels.view(f"u{size}")], photometric, 8 * size, **options)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return exif


# ---- expected pixels


def pillow_pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def rounded_to_8(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """round(v / 257) as RGB; 257 is odd, so ties do not occur."""
    grey_or_rgb = np.rint(pixels / 257).astype(np.uint8)
    return np.repeat(grey_or_rgb, 3, axis=2) if pixels.shape[2] == 1 else grey_or_rgb


def assert_pixels(data: bytes, expected: Array, tolerance: float = 0) -> None:
    """Assert that `data` decodes to `expected` (H x W x 3 levels, 0-255) and reports its size consistently."""
    found = decode_photo(data)
    pixels = found.rgb
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert pixels.shape == expected.shape
    assert found.true_size == expected.shape[:2] and found.reduction == 1 and found.alpha is None
    assert np.abs(pixels.astype(float) - expected).max() <= tolerance


# ---- orientation


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("image_format", "mode"), [(name, "RGB") for name in FORMATS] + [("JPEG", "L"), ("JPEG", "CMYK")]
)
def test_exif_orientation_is_applied(image_format: str, mode: str, orientation: int) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(image_format, {})
    data = saved(Image.fromarray(colours(22, 35)).convert(mode), image_format, exif=exif_of(orientation), **options)
    expected = pillow_pixels(data)
    assert expected.shape == ((22, 35, 3) if orientation < 5 else (35, 22, 3))
    assert_pixels(data, expected, tolerance=2 if image_format == "JPEG" else 0)
    assert upright_size(data) == expected.shape[:2]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_orientation_of_a_16_bit_photo_is_applied(channels: int, orientation: int) -> None:
    levels = levels_16(6, 10, channels)
    upright = pillow_pixels(saved(Image.fromarray(rounded_to_8(levels)), "PNG", exif=exif_of(orientation)))
    exif_chunk = png_chunk(b"eXIf", exif_of(orientation).tobytes().removeprefix(b"Exif\0\0"))
    assert_pixels(png_16(levels, exif_chunk), upright)
    assert_pixels(tiff(levels, orientation=orientation), upright)


@pytest.mark.parametrize("with_exif", [True, False])
def test_upright_size_does_not_decode(with_exif: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.fromarray(colours(22, 35)), "PNG", **({"exif": exif_of(6)} if with_exif else {}))
    loads: list[object] = []
    load = PngImagePlugin.PngImageFile.load
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: (loads.append(image), load(image))[1])
    assert upright_size(data) == ((35, 22) if with_exif else (22, 35))
    assert not loads


def test_the_size_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    """Also of unusual PNGs, and with the same reasons for files that are not photos."""
    path = tmp_path / "photo"

    def size(find: Callable[[], tuple[int, int]]) -> object:
        try:
            return find()
        except PhotoError as error:
            return str(error)

    png, tif = small_png(), tiff(colours(6, 10))
    metadata = [small_png(LARGE_METADATA[name]) for name in ("1 MB of text, compressed", "a colour profile")]
    damaged = [b"no image", png[:20], bomb(30_000), b"0000ftypheic" + bytes(9), tif[:-30]]
    found = [*odd_photos.odd_photos().values(), *metadata, *damaged]
    for data in found:
        path.write_bytes(data)
        assert size(lambda: upright_size_of_file(path)) == size(lambda data=data: upright_size(data))  # type: ignore[misc]
    path.write_bytes(b"")
    assert size(lambda: upright_size_of_file(path)) == "empty file"
    assert size(lambda: upright_size_of_file(tmp_path / "none")) == "cannot be read: No such file or directory"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "GIF", "BMP", "PPM"])
def test_the_size_of_a_file_is_read_from_its_header(image_format: str, tmp_path: Path) -> None:
    """Even if the file is too large to be read."""
    path = tmp_path / "photo"
    path.write_bytes(saved(Image.fromarray(colours(20, 30)), image_format))
    os.truncate(path, photo.MAX_FILE_BYTES + 1)
    assert upright_size_of_file(path) == (20, 30)


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_invalid_orientation_is_ignored(value: int) -> None:
    data = saved(Image.fromarray(colours(8, 9)), "PNG", exif=exif_of(value))
    assert_pixels(data, colours(8, 9))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_ignored_without_warnings(image_format: str) -> None:
    exif = exif_of(6).tobytes()
    data = saved(Image.fromarray(colours(22, 35)), image_format, exif=exif[:-12] + b"\xff" * 6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        size = decode_photo(data).true_size
        assert upright_size(data) == size
    assert sorted(size) == [22, 35]
    assert not caught


# ---- kinds of pixels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [png_16, tiff, lambda levels: tiff(levels, order=">")], ids=["PNG", "TIFF", "TIFF-MM"])
def test_16_bits_are_rounded_to_8(make: Callable[[NDArray[np.uint16]], bytes], channels: int) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(channels, axis=2)
    levels[:, :, 1:] = levels[::-1, :, 1:]
    assert_pixels(make(levels), rounded_to_8(levels))


@pytest.mark.parametrize("make", [png_16, tiff], ids=["PNG", "TIFF"])
def test_16_bit_alpha_is_blended_over_black(make: Callable[[NDArray[np.uint16]], bytes]) -> None:
    levels = levels_16(64, 65, 4)
    levels[:8, :, 3] = 65535
    levels[8:16, :, 3] = 0
    exact = levels[:, :, :3].astype(float) * levels[:, :, 3:] / 65535 / 257
    half_a_level_of_8_and_of_16_bits = 0.5 + 0.5 / 257
    assert_pixels(make(levels), exact, tolerance=half_a_level_of_8_and_of_16_bits)
    assert np.array_equal(decode_photo(make(levels)).rgb[:8], rounded_to_8(levels[:8, :, :3]))


def test_16_bit_grey_with_alpha_is_blended_over_black() -> None:
    levels = levels_16(64, 65, 2)
    exact = levels[:, :, :1].astype(float) * levels[:, :, 1:] / 65535 / 257
    assert_pixels(png_16(levels), np.repeat(exact, 3, axis=2), tolerance=0.502)


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_colour_of_a_16_bit_png_is_black(channels: int) -> None:
    levels = levels_16(8, 9, channels)
    expected = rounded_to_8(levels)
    expected[2, 3] = 0
    data = png_16(levels, png_chunk(b"tRNS", levels[2, 3].astype(">u2").tobytes()))
    assert_pixels(data, expected)
    kept = decode_photo(data, keep_alpha=True)
    assert np.array_equal(kept.rgb, rounded_to_8(levels))
    assert kept.alpha is not None and kept.alpha[2, 3] == 0 and (kept.alpha == 0).sum() == 1 and kept.alpha.max() == 255


def test_16_bit_pgm_and_ppm_are_rounded_to_8() -> None:
    levels = levels_16(8, 9, 3)
    assert_pixels(b"P5 9 8 65535\n" + levels[:, :, :1].astype(">u2").tobytes(), rounded_to_8(levels[:, :, :1]))
    assert_pixels(b"P6 9 8 65535\n" + levels.astype(">u2").tobytes(), rounded_to_8(levels))


def assert_decoded_or_rejected(data: bytes, expected: NDArray[np.uint8]) -> None:
    """Rare formats may be rejected but never decoded wrongly."""
    try:
        pixels = decode_photo(data).rgb
    except PhotoError:
        return
    assert np.array_equal(pixels, expected)


def test_planar_tiff_is_decoded() -> None:
    assert_pixels(tiff(colours(40, 50), planar=True), colours(40, 50))


def test_planar_16_bit_tiff_is_decoded_or_rejected() -> None:
    levels = levels_16(40, 50, 3)
    assert_decoded_or_rejected(tiff(levels, planar=True), rounded_to_8(levels))


def test_white_is_zero_is_inverted() -> None:
    assert_pixels(tiff(colours(40, 50)[:, :, :1], photometric=0), 255 - colours(40, 50)[:, :, :1].repeat(3, axis=2))
    levels = levels_16(40, 50, 1)
    assert_pixels(tiff(levels, photometric=0), rounded_to_8(65535 - levels))


def test_12_bit_tiff_is_rejected() -> None:
    """Pillow returns its levels, up to 4095, unscaled in 16 bits: nearly black."""
    data = bytearray(tiff(levels_16(8, 8, 1)))
    entry = data.index(struct.pack("<HHIH", 258, 3, 1, 16))
    data[entry + 8 : entry + 10] = struct.pack("<H", 12)
    with pytest.raises(PhotoError, match=r"^12 bits per channel: expected 8 or 16$"):
        decode_photo(bytes(data))


@pytest.mark.parametrize("kind", ["uint32", "int32"])
def test_32_bit_integers_are_scaled_or_rejected(kind: str) -> None:
    top = np.iinfo(kind).max
    fraction = np.linspace(0, 1, 16 * 16).reshape(16, 16, 1)
    expected = np.rint(fraction * 255).astype(np.uint8).repeat(3, axis=2)
    data = tiff((fraction * top).astype(kind))
    try:
        pixels = decode_photo(data).rgb
    except PhotoError:
        return
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_floating_point_is_rejected() -> None:
    with pytest.raises(PhotoError, match="32-bit floating point: expected 8 or 16 bits per channel"):
        decode_photo(tiff(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8, 1)))


def test_palette_is_applied() -> None:
    image = Image.fromarray(colours(40, 50)).quantize(64)
    expected = np.asarray(image.convert("RGB"))
    for image_format in ("PNG", "GIF", "BMP", "TIFF"):
        assert_pixels(saved(image, image_format), expected)


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_transparent_palette_entry_is_black(image_format: str) -> None:
    image = Image.fromarray(colours(40, 50)).quantize(64)
    transparent = np.asarray(image) == 7
    expected = np.where(transparent[:, :, None], 0, np.asarray(image.convert("RGB")))
    assert transparent.any() and not transparent.all()
    assert_pixels(saved(image, image_format, transparency=7), expected)


def test_partly_transparent_palette_entries_are_blended_over_black() -> None:
    image = Image.fromarray(colours(40, 50)).quantize(64)
    alpha = (np.arange(256) * 5 % 256).astype(np.uint8)
    exact = np.asarray(image.convert("RGB")) * (alpha[np.asarray(image)][:, :, None] / 255)
    assert_pixels(saved(image, "PNG", transparency=alpha[:64].tobytes()), exact, tolerance=1)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_rgba_is_blended_over_black(image_format: str) -> None:
    rgba = np.dstack([colours(40, 50), np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)])
    rgba[:4, :, 3], rgba[4:8, :, 3] = 255, 0
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    data = saved(Image.fromarray(rgba, "RGBA"), image_format, **options)
    assert_pixels(data, rgba[:, :, :3] * (rgba[:, :, 3:] / 255), tolerance=1)
    pixels = decode_photo(data).rgb
    assert np.array_equal(pixels[:4], rgba[:4, :, :3])
    assert (pixels[4:8] == 0).all()


def test_grey_with_alpha_is_blended_over_black() -> None:
    grey_alpha = np.random.default_rng(1).integers(0, 256, (40, 50, 2), dtype=np.uint8)
    exact = grey_alpha[:, :, :1] * (grey_alpha[:, :, 1:] / 255)
    data = saved(Image.fromarray(grey_alpha, "LA"), "PNG")
    assert_pixels(data, np.repeat(exact, 3, axis=2), tolerance=1)


def test_transparent_colour_of_an_8_bit_png_is_black() -> None:
    image = Image.fromarray(colours(40, 50))
    expected = colours(40, 50)
    expected[(expected == expected[2, 3]).all(axis=2)] = 0
    assert_pixels(saved(image, "PNG", transparency=tuple(colours(40, 50)[2, 3].tolist())), expected)


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_1_bit_is_black_and_white(image_format: str) -> None:
    bits = np.random.default_rng(1).integers(0, 2, (21, 30)).astype(bool)
    assert_pixels(saved(Image.fromarray(bits), image_format), bits[:, :, None].repeat(3, axis=2) * 255)


@pytest.mark.parametrize("bits", [2, 4])
def test_2_and_4_bit_grey_is_scaled_to_the_full_range(bits: int) -> None:
    levels = np.random.default_rng(1).integers(0, 2**bits, (8, 16), dtype=np.uint8)
    rows = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].ravel()) for row in levels]
    data = raw_png((8, 16), bits, 0, b"".join(b"\0" + row.tobytes() for row in rows))
    assert_pixels(data, levels[:, :, None].repeat(3, axis=2).astype(float) * 255 / (2**bits - 1))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "PPM", "WEBP"])
def test_grey_is_three_equal_channels(image_format: str) -> None:
    data = saved(Image.fromarray(colours(40, 50)).convert("L"), image_format)
    pixels = decode_photo(data).rgb
    assert_pixels(data, pillow_pixels(data), tolerance=2)
    if image_format != "WEBP":  # stores no grey
        assert (pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 1] == pixels[:, :, 2]).all()


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_cmyk_equals_pillow(image_format: str) -> None:
    ink = np.random.default_rng(1).integers(0, 256, (5, 7, 4), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    data = saved(Image.fromarray(ink, "CMYK"), image_format)
    assert_pixels(data, pillow_pixels(data))


@pytest.mark.parametrize(
    "options",
    [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}, {"keep_rgb": True}],
)
def test_jpeg_equals_pillow(options: dict[str, object]) -> None:
    data = saved(Image.fromarray(colours(43, 57)), "JPEG", quality=90, **options)
    assert_pixels(data, pillow_pixels(data), tolerance=2)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_first_frame_of_an_animation_is_decoded(image_format: str) -> None:
    first, second = (Image.fromarray(colours(40, 50, seed)).quantize(64).convert("RGB") for seed in (1, 2))
    if image_format == "GIF":
        first, second = first.quantize(256), second.transpose(Image.Transpose.ROTATE_180).quantize(256)
    options = {"lossless": True} if image_format == "WEBP" else {"quality": 95} if image_format == "MPO" else {}
    data = saved(first, image_format, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 2
        expected = np.asarray(image.convert("RGB"))
    assert_pixels(data, expected, tolerance=2 if image_format == "MPO" else 0)
    if image_format != "MPO":
        assert_pixels(data, np.asarray(first.convert("RGB")))


def test_default_image_of_an_apng_is_decoded() -> None:
    default, *frames = [Image.fromarray(colours(40, 50, seed)) for seed in (1, 2, 3)]
    data = saved(default, "PNG", save_all=True, default_image=True, append_images=frames)
    assert_pixels(data, colours(40, 50, 1))


# ---- alpha, ICC profile, grey


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_keep_alpha_returns_colours_and_alpha_unblended(image_format: str) -> None:
    rgba = np.dstack([colours(24, 33), np.random.default_rng(1).integers(0, 256, (24, 33), dtype=np.uint8)])
    rgba[:4, :, 3] = 0
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    kept = decode_photo(saved(Image.fromarray(rgba), image_format, **options), keep_alpha=True)
    assert np.array_equal(kept.rgb, rgba[:, :, :3])
    assert kept.alpha is not None and np.array_equal(kept.alpha, rgba[:, :, 3])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_kept_alpha_is_oriented_like_the_colours(orientation: int) -> None:
    rgba = np.dstack([colours(6, 10), np.arange(60, dtype=np.uint8).reshape(6, 10)])
    data = saved(Image.fromarray(rgba), "PNG", exif=exif_of(orientation))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    kept = decode_photo(data, keep_alpha=True)
    assert kept.alpha is not None and np.array_equal(np.dstack([kept.rgb, kept.alpha]), expected)
    assert kept.alpha.flags.c_contiguous


def test_kept_16_bit_alpha_is_rounded() -> None:
    levels = levels_16(40, 40, 4)
    kept = decode_photo(png_16(levels), keep_alpha=True)
    assert kept.alpha is not None and np.array_equal(np.dstack([kept.rgb, kept.alpha]), rounded_to_8(levels))


def test_kept_alpha_of_grey() -> None:
    grey_alpha = np.random.default_rng(1).integers(0, 256, (40, 50, 2), dtype=np.uint8)
    kept = decode_photo(saved(Image.fromarray(grey_alpha, "LA"), "PNG"), keep_alpha=True)
    assert kept.is_grey and np.array_equal(kept.rgb[:, :, 0], grey_alpha[:, :, 0])
    assert kept.alpha is not None and np.array_equal(kept.alpha, grey_alpha[:, :, 1])


def test_kept_alpha_of_a_palette() -> None:
    palette = Image.fromarray(colours(20, 20)).quantize(16)
    kept = decode_photo(saved(palette, "PNG", transparency=3), keep_alpha=True)
    assert kept.alpha is not None and np.array_equal(kept.alpha == 0, np.asarray(palette) == 3)


def test_opaque_photo_has_no_alpha() -> None:
    for data in (saved(Image.fromarray(colours(9, 12)), "PNG"), saved(Image.fromarray(colours(9, 12)), "JPEG")):
        assert decode_photo(data, keep_alpha=True).alpha is None


@pytest.mark.parametrize("image_format", FORMATS)
def test_icc_profile_is_returned_and_not_applied(image_format: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, data = (
        saved(Image.fromarray(colours(20, 20)), image_format, **options) for options in ({}, {"icc_profile": profile})
    )
    assert decode_photo(data).icc_profile == profile and decode_photo(plain).icc_profile is None
    assert np.array_equal(decode_photo(data).rgb, decode_photo(plain).rgb)


def test_photo_without_colours_is_grey() -> None:
    grey = colours(40, 40)[:, :, :1].repeat(3, axis=2)
    assert decode_photo(saved(Image.fromarray(grey), "PNG")).is_grey
    grey[39, 39, 0] ^= 1
    assert not decode_photo(saved(Image.fromarray(grey), "PNG")).is_grey


# ---- reduced JPEG


def decode_reduced(data: bytes, factor: int) -> DecodedPhoto:
    """Decode at 1/factor of the size where that is possible."""
    return decode_photo(data, lambda height, width: factor)


@cache
def smooth(height: int, width: int) -> NDArray[np.uint8]:
    return cv2.GaussianBlur(colours(height, width), (0, 0), 4)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_reduced_jpeg_equals_the_area_resized_photo(factor: int, orientation: int) -> None:
    data = saved(Image.fromarray(smooth(400, 592)), "JPEG", quality=95, exif=exif_of(orientation))
    reduced, full = decode_reduced(data, factor), decode_photo(data)
    assert (reduced.reduction, full.reduction) == (factor, 1)
    assert reduced.true_size == full.true_size == ((400, 592) if orientation < 5 else (592, 400))
    height, width = (edge // factor for edge in full.true_size)
    expected = cv2.resize(full.rgb, (width, height), interpolation=cv2.INTER_AREA)
    assert reduced.rgb.shape == expected.shape and reduced.rgb.flags.c_contiguous
    assert np.abs(reduced.rgb.astype(int) - expected).max() <= 6


MCU = {"Gray": (8, 8), "444": (8, 8), "422": (8, 16), "420": (16, 16), "440": (16, 8), "411": (8, 32)}  # height, width


def padded_jpeg(height: int, width: int, subsampling: str) -> bytes:
    """A photo without levels below 200 whose last blocks are padded with black, as encoders may do."""
    padded_size = tuple(-(-edge // unit) * unit for edge, unit in zip((height, width), MCU[subsampling], strict=True))
    padded = np.zeros((*padded_size, 3), np.uint8)
    padded[:height, :width] = 205 + smooth(height, width) // 6
    space = ("GRAY", padded[:, :, :1]) if subsampling == "Gray" else ("RGB", padded)
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(space[1]), 98, space[0], subsampling)
    size_at = data.index(b"\xff\xc0") + 5  # in the frame's header
    assert struct.unpack(">HH", data[size_at : size_at + 4]) == padded_size
    return data[:size_at] + struct.pack(">HH", height, width) + data[size_at + 4 :]


@pytest.mark.parametrize("subsampling", MCU)
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_padding_of_the_last_jpeg_blocks_is_never_visible(factor: int, subsampling: str) -> None:
    """Sizes around multiples of 8 and of the MCU: decoded at full size where reduction would show the padding."""
    reduced_sizes = set()
    for height in (48, 48 + 8, 48 + 6, 48 + 1):
        for width in (96, 96 + 8, 96 + 4, 96 + 1):
            data = padded_jpeg(height, width, subsampling)
            found, full = decode_reduced(data, factor), decode_photo(data).rgb
            assert full.min() >= 195, "the file itself is bright to its edges"
            assert found.rgb.min() >= full.min() - 2 and found.true_size == (height, width)
            if found.reduction > 1:
                reduced_sizes.add((height, width))
    multiples_of_8 = {(48, 96), (48, 104), (56, 96), (56, 104)}
    assert reduced_sizes == (multiples_of_8 if subsampling in ("Gray", "444", "420") else set())


def test_reduction_of_a_420_jpeg_by_4_needs_multiples_of_16_px() -> None:
    """4000 x 3000 px, which is common, is not a multiple."""
    for factor, expected in ((2, 2), (4, 2), (8, 2)):
        assert decode_reduced(padded_jpeg(40, 64, "420"), factor).reduction == expected
        assert decode_reduced(padded_jpeg(48, 64, "420"), factor).reduction == factor


@pytest.mark.parametrize(
    ("height", "width", "fit", "size", "expected"),
    [
        (3000, 4000, "cover", 512, 4),  # reduced to 750 px
        (3000, 4000, "cover", 750, 4),
        (3000, 4000, "cover", 751, 2),
        (3000, 4000, "cover", 375, 4),  # 1/8 would give 375 px, but the box begins at 500
        (3024, 4032, "cover", 378, 8),
        (3024, 4032, "cover", 379, 4),
        (1080, 1920, "cover", 135, 4),  # the box begins at 420
        (3000, 4000, "stretch", 375, 8),
        (3000, 4002, "stretch", 375, 2),
        (3000, 4001, "stretch", 375, 1),
        (801, 1200, "cover", 64, 1),
        (3024, 4032, "tile", 32, 1),
        (100, 100, "cover", 512, 1),
    ],
)
def test_reduction_is_limited_by_the_box(height: int, width: int, fit: str, size: int, expected: int) -> None:
    assert reduction(height, width, fit, size) == expected
    assert reduction(width, height, fit, size) == expected


def test_unusual_subsampling_is_rejected() -> None:
    data = bytearray(simplejpeg.encode_jpeg(colours(64, 64), 90, "RGB", "411"))
    sampling_at = data.index(b"\xff\xc0") + 11  # of luma: factors in both directions, four bits each
    assert data[sampling_at] == 0x41
    for factors in (0x14, 0x31):
        data[sampling_at] = factors
        with pytest.raises(PhotoError, match=r"^JPEG with unusual chroma subsampling; save it as 4:4:4 or 4:2:0, or"):
            decode_photo(bytes(data))


def test_cmyk_and_other_formats_are_not_reduced() -> None:
    image = Image.fromarray(colours(400, 608))
    for data in (saved(image.convert("CMYK"), "JPEG"), *(saved(image, name) for name in ("PNG", "WEBP", "TIFF"))):
        assert decode_reduced(data, 8).rgb.shape == (400, 608, 3)
    assert decode_reduced(saved(image.convert("L"), "JPEG"), 8).rgb.shape == (50, 76, 3)


# ---- large metadata


def small_png(chunks: bytes = b"") -> bytes:
    """colours(9, 12), with further chunks before the pixels."""
    return raw_png((9, 12), 8, 2, b"".join(b"\0" + row.tobytes() for row in colours(9, 12)), chunks)


def compressed_text(kind: bytes, keyword: bytes, num_bytes: int) -> bytes:
    text = zlib.compress(bytes(num_bytes), 9)
    return png_chunk(kind, keyword + (b"\0\1\0en\0\0" if kind == b"iTXt" else b"\0\0") + text)


XMP_ORIENTATION_6 = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
LARGE_METADATA = {
    "1 MB of text, compressed": compressed_text(b"zTXt", b"workflow", (1 << 20) + 1),
    "international text, compressed": compressed_text(b"iTXt", b"workflow", 5 << 20),
    "65 MB of text": png_chunk(b"tEXt", b"prompt\0" + b"x" * (13 << 20)) * 5,
    "a colour profile": compressed_text(b"iCCP", b"printer", 3 << 20),
    "XMP that inflates to 50 MB": compressed_text(b"iTXt", b"XML:com.adobe.xmp", 50 << 20),
    "EXIF as text that inflates to 50 MB": compressed_text(b"zTXt", b"Raw profile type exif", 50 << 20),
}


@pytest.mark.parametrize("name", LARGE_METADATA)
def test_large_metadata_is_accepted(name: str) -> None:
    plain = small_png()
    for data in (small_png(LARGE_METADATA[name]), plain[:-12] + LARGE_METADATA[name] + plain[-12:]):
        assert_pixels(data, colours(9, 12))
        assert upright_size(data) == (9, 12)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", [b"caBX", b"eXIf", b"prVt"])
def test_large_metadata_is_accepted_in_16_bits(kind: bytes, channels: int) -> None:
    levels = levels_16(9, 12, channels)
    if channels == 4:
        levels[:, :, 3] = 65535
    assert_pixels(png_16(levels, png_chunk(kind, bytes(9 << 20))), rounded_to_8(levels[:, :, :3]))


def test_first_of_many_orientations_is_used() -> None:
    """Pillow reads 64 MB of text at most."""
    texts = (XMP_ORIENTATION_6, *[b""] * 10)
    xmp = [png_chunk(b"tEXt", b"XML:com.adobe.xmp\0" + text + b" " * (7 << 20)) for text in texts]
    assert decode_photo(small_png(b"".join(xmp))).true_size == (12, 9)


def test_orientation_in_xmp_is_read() -> None:
    history = b"<!-- " + b"x" * (2 << 20) + b" -->"
    for xmp in (XMP_ORIENTATION_6, history + XMP_ORIENTATION_6):
        data = small_png(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
        assert decode_photo(data).true_size == (12, 9)


def test_large_icc_profile_is_returned() -> None:
    data = small_png(compressed_text(b"iCCP", b"printer", 3 << 20))
    assert decode_photo(data).icc_profile == bytes(3 << 20)


# ---- truncated files


def animation(image_format: str) -> bytes:
    frames = [Image.fromarray(colours(17, 23, seed)) for seed in (1, 2)]
    return saved(frames[0], image_format, save_all=True, append_images=frames[1:])


@cache
def truncatable() -> dict[str, tuple[bytes, int]]:
    """Small files by name, each with the number of bytes at its end that do not affect the (first) image.

    A PNG ends with the code for "end of block" (up to 15 bits), the Adler-32 sum (4 bytes), the chunk's CRC (4) and the
    IEND chunk (12); a GIF with the end code, an empty block and the trailer; an animation with its other frames; a BMP
    with the padding of its last row to a multiple of 4 bytes; a TIFF possibly with its directory (6 entries of 12 bytes
    from PhotometricInterpretation on), which may contain only default values.
    """
    image = Image.fromarray(colours(17, 23))
    png_end, gif_end, directory_end = 22, 3, 6 * 12 + 4
    single = {
        "JPEG": (saved(image, "JPEG", quality=90), 0),
        "JPEG-progressive": (saved(image, "JPEG", quality=90, progressive=True), 0),
        "JPEG-grey": (saved(image.convert("L"), "JPEG"), 0),
        "JPEG-CMYK": (saved(image.convert("CMYK"), "JPEG"), 0),
        "JPEG-restart-markers": (saved(image, "JPEG", restart_marker_blocks=1), 0),
        "JPEG-exif": (saved(image, "JPEG", exif=exif_of(6)), 0),
        "PNG": (saved(image, "PNG"), png_end),
        "PNG-palette": (saved(image.quantize(16), "PNG"), png_end),
        "PNG-16-bit-grey": (png_16(levels_16(17, 23, 1)), png_end),
        "PNG-16-bit-RGB": (png_16(levels_16(17, 23, 3)), png_end),
        "PNG-16-bit-RGBA": (png_16(levels_16(17, 23, 4)), png_end),
        "TIFF": (saved(image, "TIFF"), 0),
        "TIFF-LZW": (saved(image, "TIFF", compression="tiff_lzw"), 0),
        "TIFF-deflate": (saved(image, "TIFF", compression="tiff_adobe_deflate"), 0),
        "TIFF-JPEG": (saved(image, "TIFF", compression="jpeg"), 0),
        "TIFF-16-bit-grey": (tiff(levels_16(17, 23, 1)), directory_end),
        "TIFF-turned": (tiff(colours(17, 23)[:, :, :1], orientation=6), directory_end),
        "TIFF-white-is-zero": (tiff(colours(17, 23)[:, :, :1], photometric=0), directory_end),
        "TIFF-16-bit-RGB": (tiff(levels_16(17, 23, 3)), directory_end),
        "WEBP": (saved(image, "WEBP"), 0),
        "WEBP-lossless": (saved(image, "WEBP", lossless=True), 0),
        "WEBP-animated": (animation("WEBP"), 0),
        "GIF": (saved(image.quantize(64), "GIF"), gif_end),
        "BMP": (saved(image, "BMP"), -3 * 23 % 4),
        "BMP-palette": (saved(image.quantize(16), "BMP"), -23 % 4),
        "PPM": (saved(image, "PPM"), 0),
        "AVIF": (saved(image, "AVIF"), 0),
    }
    gif, apng = animation("GIF"), animation("PNG")
    second_frame = {"GIF-animated": (gif, len(gif) - gif.rindex(b"\x21\xf9") + gif_end)}
    second_frame["APNG"] = (apng, len(apng) - apng.rindex(b"fcTL") + 4 + png_end - 12)
    return single | second_frame


@pytest.mark.parametrize("name", truncatable())
def test_truncated_photo_is_rejected_at_every_length(name: str) -> None:
    """A file that lacks only irrelevant bytes may be decoded, but then exactly."""
    data, num_irrelevant = truncatable()[name]
    expected = decode_photo(data).rgb
    accepted, differed = [], []
    for length in range(1, len(data)):
        try:
            pixels = decode_photo(data[:length]).rgb
        except PhotoError:
            continue
        accepted.append(length)
        if not np.array_equal(pixels, expected):
            differed.append(length)
    assert differed == [], f"wrong pixels for these lengths of {len(data)} bytes"
    assert [length for length in accepted if length < len(data) - num_irrelevant] == []


@cache
def large_files() -> dict[str, bytes]:
    """Files larger than the blocks in which decoders read (64 KiB) and taller than one strip."""
    image = Image.fromarray(colours(260, 400))
    return {
        "JPEG": saved(image.resize((400, 272)), "JPEG", quality=98),  # full blocks, so that it can be reduced
        "JPEG-progressive": saved(image.resize((400, 272)), "JPEG", quality=98, progressive=True),
        "PNG": saved(image, "PNG"),
        "PNG-16-bit": png_16(levels_16(260, 400, 3)),
        "TIFF": saved(image, "TIFF"),
        "TIFF-16-bit": tiff(levels_16(260, 400, 3)),
        "WEBP": saved(image, "WEBP", lossless=True),
        "BMP": saved(image, "BMP"),
    }


@pytest.mark.parametrize("name", large_files())
@given(fraction=st.floats(0, 1))
@settings(max_examples=25)
def test_truncated_large_photo_is_rejected(name: str, fraction: float) -> None:
    data = large_files()[name]
    with pytest.raises(PhotoError):
        decode_photo(data[: max(1, round(fraction * (len(data) - 23)))])


@pytest.mark.parametrize("name", ["JPEG", "JPEG-progressive"])
@given(fraction=st.floats(0.01, 1), factor=st.sampled_from([2, 4, 8]))
@settings(max_examples=25)
def test_truncated_jpeg_is_rejected_when_reduced(name: str, fraction: float, factor: int) -> None:
    data = large_files()[name]
    with pytest.raises(PhotoError):
        decode_reduced(data[: round(fraction * (len(data) - 1))], factor)


@pytest.mark.parametrize("name", ["JPEG", "JPEG-progressive", "PNG", "PNG-16-bit", "TIFF", "BMP"])
def test_truncated_photo_is_reported_as_truncated(name: str) -> None:
    data = large_files()[name]
    with pytest.raises(PhotoError, match=rf"^truncated {name.partition('-')[0]}$"):
        decode_photo(data[: len(data) // 2])


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\xaa"])
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
def test_jpeg_with_an_unwritten_end_is_rejected(fraction: float, filler: bytes, progressive: bool) -> None:
    """Like an interrupted download into a preallocated file, or lost disk blocks."""
    data = saved(Image.fromarray(colours(130, 200)), "JPEG", quality=95, progressive=progressive)
    kept = round(fraction * len(data))
    for end in (b"", b"\xff\xd9"):
        with pytest.raises(PhotoError, match="JPEG"):
            decode_photo(data[:kept] + filler * (len(data) - kept - len(end)) + end)


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7])
def test_jpeg_with_zeroed_bytes_is_rejected(fraction: float) -> None:
    data = saved(Image.fromarray(colours(130, 200)), "JPEG", quality=90)
    start = round(fraction * len(data))
    with pytest.raises(PhotoError, match="JPEG"):
        decode_photo(data[:start] + bytes(64) + data[start + 64 :])


def test_jpeg_with_padding_before_its_end_is_rejected() -> None:
    """Padding cannot be distinguished from lost data."""
    data = saved(Image.fromarray(colours(43, 57)), "JPEG")
    with pytest.raises(PhotoError, match=r"^damaged JPEG \(Corrupt JPEG data: \d+ extraneous bytes"):
        decode_photo(data[:-2] + bytes(7) + data[-2:])


@pytest.mark.parametrize("name", [name for name in truncatable() if not name.startswith("PPM")])
@pytest.mark.parametrize("trailing", [b"\0", b"\n", b"written by a camera" * 100])
def test_trailing_bytes_are_ignored(name: str, trailing: bytes) -> None:
    data, _ = truncatable()[name]
    assert_pixels(data + trailing, decode_photo(data).rgb)


@pytest.mark.parametrize("name", ["PNG", "PNG-16-bit-grey", "PNG-16-bit-RGB"])
def test_png_with_a_flipped_bit_is_rejected(name: str) -> None:
    """PNG checksums detect the damage."""
    data, _ = truncatable()[name]
    start = data.index(b"IDAT") + 20
    for position in range(start, len(data) - 30, 7):
        damaged = bytearray(data)
        damaged[position] ^= 4
        with pytest.raises(PhotoError):
            decode_photo(bytes(damaged))


# ---- garbage


def check_decoded_or_rejected(data: bytes) -> None:
    """Assert that any `data` gives an H x W x 3 image or a PhotoError with a reason."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo, "MAX_PIXELS", 10**6)  # headers with a wrong size must not slow this down
        for factor in (1, 8):
            try:
                pixels = decode_reduced(data, factor).rgb
            except PhotoError as error:
                assert str(error)
                continue
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
            assert min(pixels.shape[:2]) >= 1


signatures = st.sampled_from(
    [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08",
     b"P6 4 4 255\n", b"RIFF\x40\0\0\0WEBPVP8 ", b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x18ftypavif"]
)  # fmt: skip


@given(signature=signatures, body=st.binary(max_size=300))
@settings(max_examples=200)
def test_garbage_is_decoded_or_rejected(signature: bytes, body: bytes) -> None:
    check_decoded_or_rejected(signature + body)


edits_of_bytes = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "delete", "cut"]), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=6,
)


@given(name=st.sampled_from(sorted(truncatable())), edits=edits_of_bytes, near_start=st.booleans())
@settings(max_examples=200)
def test_mutated_photo_is_decoded_or_rejected(
    name: str, edits: list[tuple[str, float, bytes]], near_start: bool
) -> None:
    data = truncatable()[name][0]
    for kind, fraction, content in edits:
        start = round(fraction * min(len(data), 100 if near_start else len(data)))
        rest = {"set": len(content), "insert": 0, "delete": len(content), "cut": len(data)}[kind]
        new = content if kind in ("set", "insert") else b""
        data = data[:start] + new + data[start + rest :]
    check_decoded_or_rejected(data or b"\0")


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_image_without_pixels_is_rejected(size: tuple[int, int]) -> None:
    for data in (raw_png(size, 8, 2, bytes(size[0])), tiff(np.zeros((*size, 3), np.uint8)), b"P6 %d %d 255\n" % size):
        with pytest.raises(PhotoError, match="not an image, or its header is damaged"):
            decode_photo(data)


XBM = b"#define im_width 8\n#define im_height 1\nstatic char im_bits[] = {\n0x01};\n"


@pytest.mark.parametrize(
    "text", [b"x", b"Text.\n", b"<!DOCTYPE html><html>404</html>", b'{"error": 403}', "照片".encode(), b"\0" * 99, XBM]
)
def test_text_is_rejected(text: bytes) -> None:
    with pytest.raises(PhotoError, match=r"^not an image, or its header is damaged$"):
        decode_photo(text)


def test_decoding_never_starts_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow passes PostScript to Ghostscript, whatever the file name."""
    trace = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho 10\ntouch {trace}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None, raising=False)
    with pytest.raises(PhotoError):
        decode_photo(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert not trace.exists()


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1"])
def test_heic_is_rejected_with_a_hint(brand: bytes) -> None:
    with pytest.raises(PhotoError, match=r"^HEIC is not supported; convert it to JPEG or PNG first$"):
        decode_photo(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(100))


# ---- bombs

TOO_LARGE = "too large: 30000 x 30000 px, the limit is 250,000,000 px"
_MEMORY_LIMIT_BYTES = 2 << 30  # the pixels of the bomb would take 3.6 GB
_DECODE_PROGRAM = """
import sys
from srshards.imaging import photo
try:
    print(getattr(photo, sys.argv[1])(sys.stdin.buffer.read()))
except photo.PhotoError as error:
    print("PhotoError:", error)
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(*peak)
"""


def run_with_2_gib(function: str, data: bytes) -> tuple[str, int]:
    """Call `photo.function(data)` in a process limited to 2 GiB; return its output and peak resident memory in kB."""
    result = subprocess.run(
        [sys.executable, "-c", _DECODE_PROGRAM, function],
        input=data,
        capture_output=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT_BYTES, _MEMORY_LIMIT_BYTES)),
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr.decode()
    output, _, peak_kb = result.stdout.decode().strip().rpartition("\n")
    return output, int(peak_kb)


@pytest.mark.parametrize("function", ["decode_photo", "upright_size"])
def test_decompression_bomb_is_rejected_by_its_header(function: str) -> None:
    output, peak_kb = run_with_2_gib(function, bomb(30_000))
    _, baseline_kb = run_with_2_gib(function, saved(Image.new("RGB", (8, 8)), "PNG"))
    assert output == f"PhotoError: {TOO_LARGE}"
    assert peak_kb < baseline_kb + 20_000


def test_decompression_bomb_in_an_icon_is_rejected() -> None:
    """The header of an ICO file says 16 x 16 px, but it contains a PNG of any size."""
    inner = bomb(30_000)
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    output, peak_kb = run_with_2_gib("decode_photo", struct.pack("<HHH", 0, 1, 1) + entry + inner)
    _, baseline_kb = run_with_2_gib("decode_photo", saved(Image.new("RGB", (8, 8)), "PNG"))
    assert output.startswith("PhotoError: ")
    assert peak_kb < baseline_kb + 20_000


def test_pixel_limit_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo, "MAX_PIXELS", 40 * 50)
    assert decode_photo(saved(Image.fromarray(colours(40, 50)), "PNG")).true_size == (40, 50)
    for image_format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        with pytest.raises(PhotoError, match="too large: 51 x 40 px, the limit is 2,000 px"):
            decode_reduced(saved(Image.fromarray(colours(40, 51)), image_format), 8)


def test_pillows_limit_is_restored_after_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even while several threads decode: other users of Pillow in the process keep their limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = saved(Image.fromarray(colours(40, 50)), "PNG")
    both_decoding, go_on = Barrier(3), Event()

    def wait(height: int, width: int) -> int:
        both_decoding.wait(30)
        go_on.wait(30)
        return 1

    jpeg = saved(Image.fromarray(colours(40, 50)), "JPEG")
    with ThreadPoolExecutor(2) as threads:
        decoding = [threads.submit(decode_photo, jpeg, wait) for _ in range(2)]
        both_decoding.wait(30)
        assert Image.MAX_IMAGE_PIXELS is None
        assert decode_photo(data).true_size == upright_size(data) == (40, 50)
        assert Image.MAX_IMAGE_PIXELS is None, "the other threads are still decoding"
        go_on.set()
        assert [future.result().true_size for future in decoding] == [(40, 50)] * 2
    with pytest.raises(PhotoError):
        decode_photo(data[:40])
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


# ---- reading


def test_read_error_contains_the_reason(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"^cannot be read: No such file or directory$"):
        read_bytes(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("b.jpg")
    with pytest.raises(PhotoError, match=r"^cannot be read: Too many levels of symbolic links$"):
        read_bytes(tmp_path / "b.jpg")
    with pytest.raises(PhotoError, match=r"^cannot be read: Is a directory$"):
        read_bytes(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(PhotoError, match=r"^empty file$"):
        read_bytes(tmp_path / "empty.jpg")


def test_file_is_read_unchanged(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(100_000)
    (tmp_path / "a.jpg").write_bytes(content)
    assert read_bytes(tmp_path / "a.jpg") == content
