"""Independent code that follows the documentation computes the same images as the generator, bit for bit.

`odd_photos` creates the photos, `plain_files` decodes them, `plain_pixels` computes the images, and `plain_reader`
reads the shards.
"""

import collections
import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import odd_photos
import plain_files
import plain_pixels
import pytest
from helpers import run_cli
from plain_pixels import Ask, Box, Sample
from plain_reader import edge, read_folder

pytestmark = pytest.mark.slow

MAX_LINES = 30
# Pillow supports these only with the other byte order.
REFUSED = dict.fromkeys(
    ["tiff/white-is-zero-16-strips.tiff"],
    "not an image, or its header is damaged, or a TIFF of an unusual kind; save it as PNG",
)
# All photos with one method and some scales per fit; a few photos with every method, fit and scale.
ALL_PHOTOS = [
    (Ask("cover", "cubic", 64), (2, 3, 4)),
    (Ask("cover", "area", 16), (3,)),
    (Ask("tile", "linear", 32, step=23), (2, 5)),
    (Ask("stretch", "matlab", 18), (2, 4)),
]
FEW_PHOTOS = [
    "orientation/6.jpg",
    "orientation/5.webp",
    "png/type0-8.png",
    "png/type6-16.png",
    "tiff/white-is-zero-8.tif",
    "animated/gif-alpha.gif",
    "reducible/160x128-420.jpg",
    "reducible/turned-odd-7.jpg",
    "sizes/22x22.png",
    "sizes/97x31.png",
]
FEW_SCALES = (2, 3, 4, 7)
CONTENTS = {
    "smooth": odd_photos.smooth,
    "noisy": lambda height, width: odd_photos.noise(height, width, 3, 255),
}
# Mean and maximum difference, in grey levels, between HR of a reduced and of a full decode. JPEGs whose chroma is
# subsampled in one direction only are always decoded in full, because libjpeg would discard chroma resolution.
TOLERANCE = {
    "smooth": {"444": (1.5, 8), "420": (1.5, 8), "422": (0, 0), "440": (0, 0), "411": (0, 0)},
    "noisy": {"444": (10, 75), "420": (10, 75), "422": (0, 0), "440": (0, 0), "411": (0, 0)},
}


class Stored(NamedTuple):
    """A sample in a shard."""

    box: Box
    images: dict[str, np.ndarray]
    psnr: float


@functools.cache
def photos() -> dict[str, bytes]:
    """Return the content of each file by its name."""
    return odd_photos.odd_photos()


def generated(folder: Path, chosen: dict[str, bytes], ask: Ask, scales: Iterable[int]) -> Path:
    """Generate shards of these photos and return their folder."""
    for name, data in chosen.items():
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    args = ["--fit", ask.fit, "--method", ask.method, "--size", ask.size, "-s", *scales, "--auto", "--workers", 0]
    args += ["--tile-step", ask.step] if ask.fit == "tile" else []
    result = run_cli("generate", "-i", folder / "photos", "-o", folder / "shards", *args)
    assert result.returncode == 0, result.stderr + result.stdout
    return folder / "shards"


def stored_samples(folder: Path) -> dict[str, list[Stored]]:
    """Return the samples of each photo, in order."""
    settings, found = json.loads((folder / "manifest.json").read_bytes())["settings"], {}
    for _, images, entry in read_folder(folder):
        sides = {name: edge(settings, name) for name in images}
        arrays = {name: np.frombuffer(images[name], np.uint8).reshape(side, side, 3) for name, side in sides.items()}
        found.setdefault(entry["source"], []).append(Stored(tuple(entry["box"]), arrays, entry["psnr_up_db"]))
    return found


def hr_of(folder: Path) -> dict[str, np.ndarray]:
    """Return the HR image of each photo's only sample."""
    return {name: samples[0].images["hr"].astype(int) for name, samples in stored_samples(folder).items()}


def disagreements(chosen: dict[str, bytes], folder: Path, ask: Ask, scale: int) -> list[str]:
    """Return a line for every difference between the shards and the recomputed samples."""
    found, manifest = stored_samples(folder), json.loads((folder / "manifest.json").read_bytes())
    skipped = {entry["path"] for entry in manifest["skipped"]}
    refused = {entry["path"]: entry["reason"] for entry in manifest["failures"]}
    lines = []
    for name, data in chosen.items():
        if name in refused:
            lines += [f"{name} {scale}x: refused: {refused[name]}"] if refused[name] != REFUSED.get(name) else []
            continue
        expected, got = list(plain_pixels.samples(data, ask, scale)), found.get(name, [])
        if (len(got), name in skipped) != (len(expected), not expected):
            lines.append(f"{name} {scale}x: {len(got)} samples, expected {len(expected)}")
        for number, (stored, sample) in enumerate(zip(got, expected, strict=False)):
            lines += [f"{name} {scale}x sample {number} {text}" for text in sample_differences(stored, sample)]
    return lines


def sample_differences(stored: Stored, sample: Sample) -> list[str]:
    lines = [] if stored.box == sample.box else [f"box: {list(stored.box)}, expected {list(sample.box)}"]
    for name, expected in sample.images.items():
        lines += image_differences(name, stored.images[name], expected)
    psnr = plain_pixels.psnr(stored.images["up"], stored.images["hr"])
    expected = 200.0 if psnr is None else psnr
    return lines if stored.psnr == expected else [*lines, f"psnr_up_db: {stored.psnr}, expected {expected}"]


def image_differences(name: str, got: np.ndarray, expected: np.ndarray) -> list[str]:
    if got.shape != expected.shape:
        return [f"{name}: {got.shape}, expected {expected.shape}"]
    apart = np.abs(got.astype(int) - expected).max(axis=2)
    if not apart.any():
        return []
    y, x = np.argwhere(apart)[0]
    return [
        f"{name}: {np.count_nonzero(apart)} of {apart.size} pixels differ, by up to {apart.max()}; "
        f"the first at (y={y}, x={x}): {got[y, x].tolist()}, expected {expected[y, x].tolist()}"
    ]


def assert_no(lines: list[str]) -> None:
    """Fail with the first lines and their number per photo."""
    counts = collections.Counter(line.split()[0] for line in lines)
    more = [f"{count} in {name}" for name, count in counts.items()]
    assert not lines, "\n".join([f"{len(lines)} differences:", *lines[:MAX_LINES], *more])


@pytest.mark.parametrize(("ask", "scales"), ALL_PHOTOS, ids=lambda value: getattr(value, "fit", None))
def test_all_photos(tmp_path: Path, ask: Ask, scales: tuple[int, ...]) -> None:
    shards = generated(tmp_path, photos(), ask, scales)
    assert_no([line for scale in scales for line in disagreements(photos(), shards / f"scale_{scale}x", ask, scale)])


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "area", "lanczos", "matlab"])
@pytest.mark.parametrize("fit", ["cover", "tile", "stretch"])
def test_every_fit_method_and_scale(tmp_path: Path, fit: str, method: str) -> None:
    chosen, ask = {name: photos()[name] for name in FEW_PHOTOS}, Ask(fit, method, 29, step=17)
    shards = generated(tmp_path, chosen, ask, FEW_SCALES)
    assert_no([line for scale in FEW_SCALES for line in disagreements(chosen, shards / f"scale_{scale}x", ask, scale)])


@pytest.mark.parametrize("method", plain_pixels.FORMULAS)
def test_opencv_methods_match_their_formulas(method: str) -> None:
    sizes = [(64, 16), (63, 21), (20, 10)]
    sizes += [(16, 64), (21, 63)] if method != "area" else []  # area upsamples with cubic
    sizes += [(60, 45), (97, 64), (61, 50)] if method in ("cubic", "area") else []  # HR is rendered with these two
    for length, size in sizes:
        image = odd_photos.noise(length, length, 3, 255).astype(np.uint8)
        formula = np.clip(plain_pixels.by_formula(image, size, method), 0, 255)
        apart = np.abs(plain_pixels.resized(image, size, plain_pixels.METHODS[method]) - formula).max()
        assert apart <= (0 if method == "nearest" else 1), (method, length, size, apart)


def test_oriented_photos_equal_upright_copies(tmp_path: Path) -> None:
    """All orientations in JPEG, PNG, WebP, TIFF and AVIF, and JPEGs decoded reduced whose size is not divisible."""
    turned = {name: data for name, data in photos().items() if re.match("orientation/|reducible/turned-odd-", name)}
    twins = {f"twins/{name}.png": odd_photos.png(plain_pixels.upright(data), 8, 2) for name, data in turned.items()}
    shards = generated(tmp_path, turned | twins, Ask("cover", "cubic", 16), [2])
    hr = hr_of(shards / "scale_2x")
    pairs = [(name, hr[name], hr[f"twins/{name}.png"]) for name in turned]
    assert_no([f"{name} {text}" for name, got, twin in pairs for text in image_differences("hr", got, twin)])


@pytest.mark.parametrize("fit", ["cover", "stretch"])
def test_orientation_of_a_jpeg_rotates_and_flips_exactly(tmp_path: Path, fit: str) -> None:
    """For sizes with equal margins on both sides, decoded in full or reduced."""
    chosen = {}
    for width, height in ((128, 128), (160, 128), (168, 168), (72, 40), (129, 129), (135, 131)):
        pixels = odd_photos.noise(height, width, 3, 255)
        for sampling in odd_photos.SUBSAMPLINGS:
            for number in range(1, 9):
                chosen[f"{width}x{height}-{sampling}/{number}.jpg"] = odd_photos.jpeg(pixels, sampling, number)
    hr = hr_of(generated(tmp_path, chosen, Ask(fit, "cubic", 16), [2]) / "scale_2x")
    lines = []
    for name, got in hr.items():
        group, _, number = name.removesuffix(".jpg").partition("/")
        expected = plain_pixels.turned(hr[f"{group}/1.jpg"], int(number))
        lines += [f"{name} {text}" for text in image_differences("hr", got, expected)]
    assert_no(lines)


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("fit", ["cover", "stretch"])
def test_reduced_decoding_is_close_to_full_decoding(tmp_path: Path, fit: str, content: str) -> None:
    chosen, ask = {}, Ask(fit, "cubic", 20)
    for width, height in ((160, 160), (192, 160), (168, 176), (161, 163), (175, 161), (200, 88), (72, 40)):
        pixels = CONTENTS[content](height, width)
        for sampling in odd_photos.SUBSAMPLINGS:
            for number in (1, 7):
                chosen[f"{sampling}/{width}x{height}-{number}.jpg"] = odd_photos.padded_jpeg(pixels, sampling, number)
    hr = hr_of(generated(tmp_path, chosen, ask, [2]) / "scale_2x")
    lines = []
    for name, data in chosen.items():
        (box,) = plain_pixels.boxes(data, ask)
        full = plain_pixels.rendered(plain_pixels.of_box(plain_pixels.upright(data), box), ask.size)
        apart, (max_mean, max_single) = np.abs(hr[name] - full), TOLERANCE[content][name[:3]]
        if apart.mean() > max_mean or apart.max() > max_single:
            lines.append(f"{name}: {apart.mean():.2f} grey levels on average, at most {apart.max()}")
    assert_no(lines)


def test_white_photos_are_white_in_the_last_row_and_column(tmp_path: Path) -> None:
    data = odd_photos.padded_jpeg(np.full((1001, 2001, 3), 255), "420", quality=100)
    assert plain_files.jpeg_pixels(data).min() >= 200
    hr = hr_of(generated(tmp_path, {"white.jpg": data}, Ask("stretch", "cubic", 100), [2]) / "scale_2x")["white.jpg"]
    assert hr.min() >= 200, {"last row": hr[-1].min(), "last column": hr[:, -1].min()}
