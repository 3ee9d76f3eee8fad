"""Every image of a shard, made a second time by plain code that follows the documents: the same bytes.

`plain_files` decodes, `plain_pixels` does the rest, `plain_reader` reads the shards, `odd_photos` makes the photos.
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

MOST_LINES = 30
# Pillow knows them with the other order of bytes only.
REFUSED = dict.fromkeys(
    ["tiff/white-is-zero-16-strips.tiff"],
    "not an image, or its header is damaged, or a TIFF of an unusual kind: save it as a PNG",
)
# All photos go through one method and some scales per fit, and a few photos through every method, fit and scale.
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
# Grey levels between HR of a reduced decode and HR of a full one, in the mean of an image and at most. Where colour is
# subsampled in one direction alone, there is none: libjpeg would give less of its resolution than there is.
APART = {
    "smooth": {"444": (1.5, 8), "420": (1.5, 8), "422": (0, 0), "440": (0, 0), "411": (0, 0)},
    "noisy": {"444": (10, 75), "420": (10, 75), "422": (0, 0), "440": (0, 0), "411": (0, 0)},
}


class Shown(NamedTuple):
    """A sample of a shard."""

    box: Box
    images: dict[str, np.ndarray]
    psnr: float | None


@functools.cache
def photos() -> dict[str, bytes]:
    """Each file's content by its name."""
    return odd_photos.odd_photos()


def generated(folder: Path, chosen: dict[str, bytes], ask: Ask, scales: Iterable[int]) -> Path:
    """The folder with the shards of these photos."""
    for name, data in chosen.items():
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    words = ["--fit", ask.fit, "--method", ask.method, "--size", ask.size, "-s", *scales, "--auto", "--workers", 0]
    words += ["--tile-step", ask.step] if ask.fit == "tile" else []
    done = run_cli("generate", "-i", folder / "photos", "-o", folder / "shards", *words)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder / "shards"


def in_shards(folder: Path) -> dict[str, list[Shown]]:
    """The samples of each photo, in order."""
    settings, found = json.loads((folder / "manifest.json").read_bytes())["settings"], {}
    for _, images, said in read_folder(folder):
        sides = {name: edge(settings, name) for name in images}
        arrays = {name: np.frombuffer(images[name], np.uint8).reshape(side, side, 3) for name, side in sides.items()}
        found.setdefault(said["source"], []).append(Shown(tuple(said["box"]), arrays, said["psnr_up_db"]))
    return found


def hr_of(folder: Path) -> dict[str, np.ndarray]:
    """The only HR of each photo."""
    return {name: samples[0].images["hr"].astype(int) for name, samples in in_shards(folder).items()}


def disagreements(chosen: dict[str, bytes], folder: Path, ask: Ask, scale: int) -> list[str]:
    """A line for whatever is not as the documents say."""
    found, manifest = in_shards(folder), json.loads((folder / "manifest.json").read_bytes())
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
        for number, (shown, sample) in enumerate(zip(got, expected, strict=False)):
            lines += [f"{name} {scale}x sample {number} {text}" for text in sample_differences(shown, sample)]
    return lines


def sample_differences(shown: Shown, sample: Sample) -> list[str]:
    """Box, images and PSNR."""
    lines = [] if shown.box == sample.box else [f"box: {list(shown.box)}, expected {list(sample.box)}"]
    for name, expected in sample.images.items():
        lines += image_differences(name, shown.images[name], expected)
    psnr = plain_pixels.psnr(shown.images["up"], shown.images["hr"])
    return lines if shown.psnr == psnr else [*lines, f"psnr_up_db: {shown.psnr}, expected {psnr}"]


def image_differences(name: str, got: np.ndarray, expected: np.ndarray) -> list[str]:
    """No line where they are equal."""
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
    """Shows the first of them, and how many there are of each photo."""
    counts = collections.Counter(line.split()[0] for line in lines)
    more = [f"{count} in {name}" for name, count in counts.items()]
    assert not lines, "\n".join([f"{len(lines)} differences:", *lines[:MOST_LINES], *more])


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
def test_opencv_has_the_kernels_that_the_names_say(method: str) -> None:
    sizes = [(64, 16), (63, 21), (20, 10)]
    sizes += [(16, 64), (21, 63)] if method != "area" else []  # it is enlarged with cubic
    sizes += [(60, 45), (97, 64), (61, 50)] if method in ("cubic", "area") else []  # HR is rendered with these two
    for length, size in sizes:
        image = odd_photos.noise(length, length, 3, 255).astype(np.uint8)
        formula = np.clip(plain_pixels.by_formula(image, size, method), 0, 255)
        apart = np.abs(plain_pixels.resized(image, size, plain_pixels.METHODS[method]) - formula).max()
        assert apart <= (0 if method == "nearest" else 1), (method, length, size, apart)


def test_orientation_is_that_of_the_twin_stored_upright(tmp_path: Path) -> None:
    """All eight, in JPEG, PNG, WebP, TIFF and AVIF; JPEGs large enough to be decoded reduced, but not divisible."""
    turned = {name: data for name, data in photos().items() if re.match("orientation/|reducible/turned-odd-", name)}
    twins = {f"twins/{name}.png": odd_photos.png(plain_pixels.upright(data), 8, 2) for name, data in turned.items()}
    shards = generated(tmp_path, turned | twins, Ask("cover", "cubic", 16), [2])
    hr = hr_of(shards / "scale_2x")
    pairs = [(name, hr[name], hr[f"twins/{name}.png"]) for name in turned]
    assert_no([f"{name} {text}" for name, got, twin in pairs for text in image_differences("hr", got, twin)])


@pytest.mark.parametrize("fit", ["cover", "stretch"])
def test_the_same_jpeg_with_another_orientation_is_turned_exactly(tmp_path: Path, fit: str) -> None:
    """Of sizes that leave as much at the left as at the right, decoded in full or reduced."""
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
def test_reduced_jpegs_show_what_a_full_decode_shows(tmp_path: Path, fit: str, content: str) -> None:
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
        apart, (most_mean, most) = np.abs(hr[name] - full), APART[content][name[:3]]
        if apart.mean() > most_mean or apart.max() > most:
            lines.append(f"{name}: {apart.mean():.2f} grey levels in the mean, {apart.max()} at most")
    assert_no(lines)


def test_a_white_photo_is_white_to_its_last_row_and_column(tmp_path: Path) -> None:
    data = odd_photos.padded_jpeg(np.full((1001, 2001, 3), 255), "420", quality=100)
    assert plain_files.jpeg_pixels(data).min() >= 200
    hr = hr_of(generated(tmp_path, {"white.jpg": data}, Ask("stretch", "cubic", 100), [2]) / "scale_2x")["white.jpg"]
    assert hr.min() >= 200, {"last row": hr[-1].min(), "last column": hr[:, -1].min()}
