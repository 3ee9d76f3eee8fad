"""Listing, reading and writing photo files."""

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import make_photo, mode_and_size
from PIL import Image, ImageCms

from srshards.errors import UsageError
from srshards.imaging.photo import DecodedPhoto
from trainer.inference.photo_files import check_writable, list_photos, read_photo, write_photo

# ---- reading photos


def encoded(image_format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(make_photo(60, 80, 0)).save(stream, image_format)
    return stream.getvalue()


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def test_photo_is_read_upright_with_alpha(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba = np.dstack([make_photo(20, 31, 0), make_photo(20, 31, 1)[:, :, 0]])
    read = read_photo(save(tmp_path / "a.png", Image.fromarray(rgba), exif=exif))
    rotated = np.rot90(rgba, -1)
    assert np.array_equal(read.rgb, rotated[:, :, :3]), "colours under transparent pixels are kept"
    assert read.alpha is not None and np.array_equal(read.alpha, rotated[:, :, 3]) and not read.is_grey


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "empty file"),
        ("text.jpg", b"not a photo", "not an image, or its header is damaged"),
        ("cut.tif", encoded("TIFF")[:-400], "truncated TIFF"),
        ("phone.heic", b"\0\0\0\x18ftypheic" + bytes(100), "HEIC is not supported; convert it to JPEG or PNG first"),
    ],
    ids=["empty", "text", "cut", "HEIC"],
)
def test_invalid_photo_is_an_error(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(UsageError) as refused:
        warnings.simplefilter("always")
        read_photo(path)
    assert not caught, "warnings of Pillow must not be shown"
    assert str(refused.value) == f"cannot read {path}: {reason}" and refused.value.exit_code == 2


def test_unreadable_photo_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*missing.jpg: No such file"):
        read_photo(tmp_path / "missing.jpg")
    with pytest.raises(UsageError, match="it is a folder"):
        read_photo(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UsageError, match="not a regular file"):
        read_photo(tmp_path / "pipe.jpg")
    monkeypatch.setattr("srshards.imaging.photo.MAX_FILE_BYTES", 9)
    with pytest.raises(UsageError, match=r"too large: \d+ bytes, the limit is 9 bytes"):
        read_photo(save(tmp_path / "big.png", Image.new("RGB", (10, 10))))


# ---- listing photos


def touch(*paths: Path) -> list[Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return list(paths)


def test_folders_are_searched_and_files_are_taken_as_given(tmp_path: Path) -> None:
    inside = touch(tmp_path / "in" / "B.JPG", tmp_path / "in" / "a" / "z.webp", tmp_path / "in" / "c.png")
    touch(tmp_path / "in" / "notes.txt", tmp_path / "in" / ".hidden.jpg", tmp_path / "in" / ".trash" / "a.jpg")
    file = touch(tmp_path / "odd.name")[0]
    assert list_photos([file, tmp_path / "in"]) == [file, *inside]
    roundabout = tmp_path / "in" / "a" / ".." / "c.png"  # a duplicate
    assert list_photos([inside[2], tmp_path / "in", roundabout]) == [inside[2], *inside[:2]]


def test_links_are_followed_without_loops(tmp_path: Path) -> None:
    photo = touch(tmp_path / "in" / "a" / "1.jpg", tmp_path / "far" / "2.jpg")
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "far").symlink_to(tmp_path / "far")
    assert list_photos([tmp_path / "in"]) == [photo[0], tmp_path / "in" / "far" / "2.jpg"]


def test_leave_out_skips_earlier_results(tmp_path: Path) -> None:
    photo, result = touch(tmp_path / "in" / "1.jpg", tmp_path / "in" / "out" / "1_4x.png")
    assert list_photos([tmp_path / "in"]) == [photo, result]
    assert list_photos([tmp_path / "in"], leave_out=tmp_path / "in" / "out") == [photo]
    assert list_photos([tmp_path / "in"], leave_out=tmp_path / "in") == [photo, result]


def test_no_photos_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.txt")
    with pytest.raises(UsageError, match=r"no photos in .*in: expected files ending in \.avif .*\.webp"):
        list_photos([tmp_path / "in"])
    with pytest.raises(UsageError, match=r"no such file or folder: .*nowhere; pass photos"):
        list_photos([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="no photos given"):
        list_photos([])


# ---- writing photos


@pytest.mark.parametrize("suffix", [".png", ".webp", ".PNG", ""])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_written_photo_reads_back_equal(suffix: str, grey: bool, alpha: bool, tmp_path: Path) -> None:
    rgb = make_photo(24, 33, 0)
    rgb = rgb[:, :, :1].repeat(3, axis=2) if grey else rgb
    photo = DecodedPhoto(rgb, make_photo(24, 33, 1)[:, :, 0] if alpha else None)
    path = tmp_path / "new" / f"a{suffix}"
    write_photo(path, photo)
    read_back = read_photo(path)
    assert np.array_equal(read_back.rgb, rgb) and read_back.is_grey == grey
    assert read_back.alpha is None if photo.alpha is None else np.array_equal(read_back.alpha, photo.alpha)
    if suffix.lower() == ".png":
        assert mode_and_size(path)[0] == ("L" if grey else "RGB") + ("A" if alpha else "")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "a temporary file is left"


def test_written_jpeg_is_close_to_the_pixels(tmp_path: Path) -> None:
    rgb = np.asarray(Image.fromarray(make_photo(8, 8, 0)).resize((64, 64), Image.Resampling.BICUBIC))
    write_photo(tmp_path / "a.jpg", DecodedPhoto(rgb))
    write_photo(tmp_path / "b.JPEG", DecodedPhoto(rgb[:, :, :1].repeat(3, axis=2)))
    assert np.abs(read_photo(tmp_path / "a.jpg").rgb.astype(int) - rgb).mean() < 2
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2, 0] = stripes[:, 1::2, 2] = 200
    write_photo(tmp_path / "stripes.jpg", DecodedPhoto(stripes))
    assert np.abs(read_photo(tmp_path / "stripes.jpg").rgb.astype(int) - stripes).mean() < 5, "4:2:0 chroma"
    assert mode_and_size(tmp_path / "b.JPEG")[0] == "L"


def test_icc_profile_is_preserved_for_colour_only(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = save(tmp_path / "a.jpg", Image.fromarray(make_photo(20, 20, 0)), icc_profile=profile)
    photo = read_photo(source)
    assert photo.icc_profile == profile
    for suffix in (".png", ".jpg", ".webp"):
        write_photo(tmp_path / f"b{suffix}", photo)
        assert read_photo(tmp_path / f"b{suffix}").icc_profile == profile
    write_photo(tmp_path / "grey.png", DecodedPhoto(photo.rgb[:, :, :1].repeat(3, axis=2), None, profile))
    assert read_photo(tmp_path / "grey.png").icc_profile is None, "an RGB profile does not apply to grey"


@pytest.mark.parametrize(
    ("name", "size", "alpha", "message"),
    [
        ("a.tif", (9, 9), False, "expected a name ending in .png, .jpg or .webp"),
        ("a.gif", (9, 9), False, "expected a name ending in"),
        ("a.jpg", (9, 65_536), False, "65536 x 9 px exceeds JPEG's limit of 65,535 px; write a .png"),
        ("a.webp", (16_384, 9), False, "9 x 16384 px exceeds WEBP's limit of 16,383 px; write a .png"),
        ("a.jpg", (9, 9), True, "JPEG does not support transparency; write a .png or .webp"),
    ],
)
def test_unwritable_photo_is_an_error(
    name: str, size: tuple[int, int], alpha: bool, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        check_writable(tmp_path / name, *size, alpha)
    if max(size) < 100:
        pixels = np.zeros((*size, 3), np.uint8)
        with pytest.raises(UsageError, match=message):
            write_photo(tmp_path / name, DecodedPhoto(pixels, pixels[:, :, 0] if alpha else None))
    assert not list(tmp_path.iterdir())
