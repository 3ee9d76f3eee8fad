"""Bad photos, odd names and wrong options through the command line: what each gets, and that nothing gets lost."""

import ctypes
import io
import json
import os
import re
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import deep_folder, run_cli
from numpy.typing import NDArray
from odd_photos import raw_png, saved
from PIL import Image, ImageOps

SIZE = 64
GENERATE = (sys.executable, "-m", "shardgen", "generate", "--auto", "--workers", "0", "--size", str(SIZE))
NOT_AN_IMAGE = "not an image, or its header is damaged"
TOO_LARGE = "too large: 30000 x 30000 px, the limit is 250,000,000 px"
Done = subprocess.CompletedProcess[str]


# ---- files


def colours(seed: int, height: int = SIZE, width: int = SIZE) -> NDArray[np.uint8]:
    """H x W x 3 uint8, different for every seed, not symmetric in any way."""
    y, x = np.mgrid[0:height, 0:width]
    slopes = np.stack([x * 2, y * 2, (x + y) * 1], axis=-1) * 64 / max(height, width)
    return (slopes + np.random.default_rng(seed).integers(0, 100, slopes.shape)).astype(np.uint8)


def picture(seed: int, height: int = SIZE, width: int = SIZE) -> Image.Image:
    return Image.fromarray(colours(seed, height, width))


def jpeg(seed: int) -> bytes:
    return saved(picture(seed), "JPEG", quality=95)


def png(seed: int) -> bytes:
    return saved(picture(seed), "PNG")


def png_16(levels: NDArray[np.uint16]) -> bytes:
    return raw_png(levels.shape[:2], 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels))


def bomb() -> bytes:
    """A few bytes instead of all that the header promises."""
    return raw_png((30_000, 30_000), 8, 2, bytes(1000))


def put(root: Path, name: str | bytes, content: bytes) -> str:
    """Write a file below `root`; returns its name as Python, and the manifest, spell it."""
    path = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return os.fsdecode(name)


def folder_of(root: Path, good: int, bad: int) -> Path:
    for number in range(good):
        put(root, f"good/{number}.png", png(number))
    for number in range(bad):
        put(root, f"bad/{number}.jpg", b"no photo")
    return root


# ---- runs


def run(*args: object, **options: Any) -> Done:
    """`shardgen generate` with `args`; a run that hangs is an error."""
    if not options:
        return run_cli(*GENERATE[3:], *args)
    command = [*GENERATE, *(str(arg) for arg in args)]
    return subprocess.run(
        command, **{"capture_output": True, "text": True, "errors": "surrogateescape", "timeout": 60, **options}
    )


def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


def spoken_lines(done: Done) -> list[str]:
    """What the run says on stderr besides its progress."""
    lines = done.stderr.splitlines()
    return [line for line in lines if not re.match(r"[\d,]+/[\d,]+ photos, ", line)]


def assert_refused(done: Done, *words: str) -> None:
    """Exit code 2 and a message with all `words`, not a traceback."""
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done.stderr + done.stdout
    message = " ".join(done.stderr.split())
    assert "Error: " in message
    for word in words:
        assert word in message


@dataclass(frozen=True)
class Shards:
    """What a run wrote for one scale, read with nothing but tarfile, json and NumPy."""

    manifest: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]  # by source; `hr`, `lr` and `up` are pixels, the rest is from the json

    @property
    def failures(self) -> dict[str, str]:
        return {item["path"]: item["reason"] for item in self.manifest["failures"]}

    @property
    def skipped(self) -> dict[str, str]:
        return {item["path"]: item["reason"] for item in self.manifest["skipped"]}

    def hr(self, source: str) -> NDArray[np.uint8]:
        (sample,) = self.samples[source]
        hr: NDArray[np.uint8] = sample["hr"]
        return hr


def read_shards(output: Path, scale: int = 4) -> Shards:
    folder = output / f"scale_{scale}x"
    samples: dict[str, list[dict[str, Any]]] = {}
    for tar in sorted(folder.glob("*.tar")):
        members: dict[str, dict[str, bytes]] = {}
        with tarfile.open(tar) as archive:
            for member in archive:
                key, _, extension = member.name.partition(".")
                members.setdefault(key, {})[extension] = archive.extractfile(member).read()  # type: ignore[union-attr]
        for parts in members.values():
            assert set(parts) == {"hr.npy", "lr.npy", "up.npy", "json"}
            images = {what: np.load(io.BytesIO(parts[f"{what}.npy"])) for what in ("hr", "lr", "up")}
            described = json.loads(parts["json"])
            samples.setdefault(described["source"], []).append({**described, **images})
    return Shards(json.loads((folder / "manifest.json").read_bytes()), samples)


def assert_all_accounted_for(shards: Shards, photos: set[str]) -> None:
    """Every photo is a sample's source, a failure or skipped, and only one of these; the totals say the same."""
    groups = [set(shards.samples), set(shards.failures), set(shards.skipped)]
    assert set.union(*groups) == photos
    assert sum(len(group) for group in groups) == len(photos)
    totals = shards.manifest["totals"]
    assert totals["photos"] == len(photos)
    assert totals["failures"] == len(shards.manifest["failures"]) == len(shards.failures)
    assert totals["skipped"] == len(shards.manifest["skipped"]) == len(shards.skipped)
    assert totals["samples"] == sum(len(samples) for samples in shards.samples.values())
    assert totals["samples"] == sum(shard["samples"] for shard in shards.manifest["shards"])


def assert_verified(output: Path) -> None:
    done = run_cli("verify", output)
    assert done.returncode == 0, done.stderr
    assert "all intact" in done.stdout


# ---- one folder with everything in it


@dataclass
class Zoo:
    """All kinds of photos, what each must become, and what a run made of them."""

    good: dict[str, NDArray[np.uint8]]  # by name, the HR image
    failing: dict[str, str]  # by name, the reason
    enlarged: set[str]
    num_others: int = 0
    done: Done | None = None
    shards: Shards | None = None

    @property
    def photos(self) -> set[str]:
        return self.good.keys() | self.failing.keys()


LONG_NAMES = {
    "255 bytes": "n" * 251 + ".jpg",
    "255 bytes of Chinese": "照" * 83 + "ab.jpg",
    "300 bytes of path": "f" * 200 + "/" + "n" * 95 + ".jpg",
    "1000 bytes of path": "/".join(["f" * 199] * 4) + "/" + "n" * 196 + ".jpg",
}
ODD_NAMES = {
    "dots": "names/a.b..c.tar.gz.jpg",
    "leading dot": "names/.hidden.jpg",
    "spaces": "names/ a  photo .jpg",
    "Chinese": "名字/照片.jpg",
    "emoji": "names/🏔️🌅.jpg",
    "decomposed": "names/e\u0301te\u0301.jpg",
    "not UTF-8": b"names/caf\xe9\xff.jpg",
    "folder not UTF-8": b"n\xe4men/a.jpg",
    "newline": "names/two\nlines.jpg",
    "escape": "names/\x1b[31mred.jpg",
    "quotes": 'names/"it\'s".jpg',
    "backslash": "names/a\\b.jpg",
    "brackets": "names/[bold]*?.jpg",
    "percent": "names/%s%d{0}.jpg",
    "dash": "names/--size.jpg",
    "upper case": "names/IMG_0001.JPG",
    "mixed case": "names/a.JpEg",
}


def kinds_of_photos() -> dict[str, tuple[bytes, NDArray[np.uint8]]]:
    """Photos of 64 x 64 px by name: content, and the HR image that it must give."""
    levels = np.random.default_rng(1).integers(0, 65536, (SIZE, SIZE, 3), dtype=np.uint16)
    palette = picture(2).quantize(64)
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[:, 20:] = 255
    rgba = Image.fromarray(np.dstack([colours(3), alpha]), "RGBA")
    over_black = np.where(alpha[:, :, None] == 0, 0, colours(3))
    grey = np.asarray(picture(4).convert("L"))
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = [picture(seed).quantize(64) for seed in (5, 6)]
    animation = {"save_all": True, "append_images": frames[1:]}
    first = np.asarray(frames[0].convert("RGB"))
    return {
        "kinds/plain.png": (png(0), colours(0)),
        "kinds/png_named.jpg": (png(7), colours(7)),
        "kinds/jpeg_named.png": (jpeg(8), np.asarray(Image.open(io.BytesIO(jpeg(8))))),
        "kinds/grey.png": (saved(Image.fromarray(grey), "PNG"), grey[:, :, None].repeat(3, axis=2)),
        "kinds/palette.png": (saved(palette, "PNG"), np.asarray(palette.convert("RGB"))),
        "kinds/rgba.png": (saved(rgba, "PNG"), over_black),
        "kinds/rgba.webp": (saved(rgba, "WEBP", lossless=True, exact=True), over_black),
        "kinds/bits16.png": (png_16(levels), np.rint(levels / 257).astype(np.uint8)),
        "kinds/turned.png": (
            saved(picture(9), "PNG", exif=turned),
            np.asarray(picture(9).transpose(Image.Transpose.ROTATE_270)),
        ),
        "kinds/turned.tif": (
            saved(picture(10), "TIFF", exif=turned),
            np.asarray(picture(10).transpose(Image.Transpose.ROTATE_270)),
        ),
        "kinds/animated.gif": (saved(frames[0], "GIF", **animation), first),
        "kinds/animated.png": (saved(frames[0].convert("RGB"), "PNG", **animation), first),
        "kinds/animated.webp": (saved(frames[0].convert("RGB"), "WEBP", lossless=True, **animation), first),
        "kinds/plain.bmp": (saved(picture(11), "BMP"), colours(11)),
        "kinds/plain.tiff": (saved(picture(12), "TIFF"), colours(12)),
        "kinds/plain.ppm": (saved(picture(13), "PPM"), colours(13)),
        "kinds/one_pixel.png": (saved(Image.new("RGB", (1, 1), (250, 100, 3)), "PNG"), flat(250, 100, 3)),
        "kinds/one_pixel_wide.png": (saved(Image.new("RGB", (1, 999), (1, 2, 3)), "PNG"), flat(1, 2, 3)),
    }


def jpegs_of_kinds() -> dict[str, bytes]:
    """Photos of 64 x 64 px by name whose pixels are what Pillow's own decoding gives, give or take rounding."""
    turned = Image.Exif()
    turned[0x0112] = 8
    ink = np.random.default_rng(2).integers(0, 256, (8, 8, 4), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return {
        "kinds/plain.jpg": jpeg(20),
        "kinds/progressive.jpeg": saved(picture(21), "JPEG", progressive=True),
        "kinds/grey.jpg": saved(picture(22).convert("L"), "JPEG"),
        "kinds/cmyk.jpg": saved(Image.fromarray(ink, "CMYK"), "JPEG"),
        "kinds/turned.jpg": saved(picture(23), "JPEG", exif=turned),
    }


def flat(*colour: int) -> NDArray[np.uint8]:
    return np.full((SIZE, SIZE, 3), colour, np.uint8)


def broken_photos() -> dict[str, tuple[bytes, str]]:
    whole_png = saved(picture(30, 90, 90), "PNG")
    whole_jpeg = saved(picture(31, 90, 90), "JPEG")
    progressive = saved(picture(32, 90, 90), "JPEG", progressive=True)
    levels = np.random.default_rng(3).integers(0, 65536, (SIZE, SIZE, 3), dtype=np.uint16)
    return {
        "bad/zero_bytes.jpg": (b"", "empty file"),
        "bad/zero_bytes.png": (b"", "empty file"),
        "bad/text.jpg": (b"This is no photo.\n", NOT_AN_IMAGE),
        "bad/page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", NOT_AN_IMAGE),
        "bad/half.jpg": (whole_jpeg[: len(whole_jpeg) // 2], "truncated JPEG"),
        "bad/nearly_whole.jpg": (whole_jpeg[:-2], "truncated JPEG"),
        "bad/half_with_end.jpg": (whole_jpeg[: len(whole_jpeg) // 2] + b"\xff\xd9", "truncated JPEG"),
        "bad/half_progressive.jpg": (progressive[: len(progressive) // 2], "truncated JPEG"),
        "bad/header_only.jpg": (whole_jpeg[:100], "truncated header"),
        "bad/half.png": (whole_png[: len(whole_png) // 2], "truncated PNG"),
        "bad/half_16_bit.png": (png_16(levels)[:10_000], "truncated PNG"),
        "bad/header_only.png": (whole_png[:20], "truncated header"),
        "bad/half.bmp": (saved(picture(33), "BMP")[:6000], "truncated BMP"),
        "bad/bomb.png": (bomb(), TOO_LARGE),
        "bad/bomb_named.jpg": (bomb(), TOO_LARGE),
        "bad/phone.heic": (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
            "HEIC is not supported: convert it to JPEG or PNG first",
        ),
    }


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    root = tmp_path_factory.mktemp("zoo")
    zoo = Zoo({}, {}, {"kinds/one_pixel.png", "kinds/one_pixel_wide.png"})
    for name, (content, pixels) in kinds_of_photos().items():
        zoo.good[put(root / "in", name, content)] = pixels
    for name, content in jpegs_of_kinds().items():
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        zoo.good[put(root / "in", name, content)] = pixels
    names = [*ODD_NAMES.values(), *LONG_NAMES.values()]
    for seed, name in enumerate([*names, "top.jpg", "twin/a.jpg", "twin/a.png", "other/a.jpg", "twin/deep/er/a.jpg"]):
        zoo.good[put(root / "in", name, png(100 + seed))] = colours(100 + seed)  # PNG by content, so pixels are exact
    for name, (content, reason) in broken_photos().items():
        zoo.failing[put(root / "in", name, content)] = reason
    (root / "in" / "bad" / "dangling.jpg").symlink_to("nowhere.jpg")
    zoo.failing["bad/dangling.jpg"] = "cannot be read: No such file or directory"
    for name in ("notes.txt", "bad/Thumbs.db", "kinds/no_extension", "kinds/clip.mp4", "kinds/.jpg", "jpg"):
        put(root / "in", name, png(0))
        zoo.num_others += 1
    os.mkfifo(root / "in" / "bad" / "pipe.jpg")
    zoo.num_others += 1
    (root / "in" / "empty folder.jpg").mkdir()
    zoo.done = run("-i", root / "in", "-o", root / "out", "--max-failures", 30)
    zoo.shards = read_shards(root / "out")
    return zoo


def test_bad_photos_within_the_limit_end_with_success_and_one_clear_line(zoo: Zoo) -> None:
    assert zoo.done.returncode == 0, zoo.done.stderr
    count, total = len(zoo.failing), len(zoo.photos)
    (line,) = spoken_lines(zoo.done)
    assert line.startswith(f"{count} of {total} photos failed (--max-failures: 30), e.g. bad/bomb.png: {TOO_LARGE}.")
    assert line.endswith("The manifest lists all of them.")
    assert f"{total - count} samples" in zoo.done.stdout
    assert re.search(rf"\b{count} [a-z ]*fail", zoo.done.stdout)


def test_every_photo_is_a_sample_or_a_failure(zoo: Zoo) -> None:
    assert_all_accounted_for(zoo.shards, zoo.photos)


def test_shards_of_a_folder_with_bad_photos_are_whole(zoo: Zoo) -> None:
    assert_verified(Path(zoo.done.args[zoo.done.args.index("-o") + 1]))


@pytest.mark.parametrize("name", [*broken_photos(), "bad/dangling.jpg"])
def test_a_bad_photo_is_a_failure_with_its_reason_and_never_a_sample(zoo: Zoo, name: str) -> None:
    assert zoo.shards.failures.get(name) == zoo.failing[name]
    assert name not in zoo.shards.samples


@pytest.mark.parametrize("name", [*kinds_of_photos()])
def test_every_kind_of_photo_becomes_a_sample_with_the_right_pixels(zoo: Zoo, name: str) -> None:
    assert np.array_equal(zoo.shards.hr(name), zoo.good[name])


@pytest.mark.parametrize("name", [*jpegs_of_kinds()])
def test_every_kind_of_jpeg_becomes_a_sample_with_the_right_pixels(zoo: Zoo, name: str) -> None:
    assert np.abs(zoo.shards.hr(name).astype(int) - zoo.good[name]).max() <= 2


@pytest.mark.parametrize("kind", [*ODD_NAMES, *LONG_NAMES])
def test_a_photo_may_have_any_name(zoo: Zoo, kind: str) -> None:
    name = os.fsdecode({**ODD_NAMES, **LONG_NAMES}[kind])
    assert np.array_equal(zoo.shards.hr(name), zoo.good[name])
    assert zoo.shards.samples[name][0]["class"] == (name.rpartition("/")[0] or ".")


def test_equal_stems_and_names_stay_apart(zoo: Zoo) -> None:
    for name in ("twin/a.jpg", "twin/a.png", "other/a.jpg", "twin/deep/er/a.jpg"):
        assert np.array_equal(zoo.shards.hr(name), zoo.good[name])


def test_the_class_is_the_folder_and_a_dot_at_the_top(zoo: Zoo) -> None:
    classes = {source: samples[0]["class"] for source, samples in zoo.shards.samples.items()}
    assert classes["top.jpg"] == "."
    assert classes["twin/a.jpg"] == "twin"
    assert classes["twin/deep/er/a.jpg"] == "twin/deep/er"
    counted: dict[str, int] = {}
    for split in zoo.shards.manifest["splits"].values():
        for name, count in split["samples_per_class"].items():
            counted[name] = counted.get(name, 0) + count
    expected = [source.rpartition("/")[0] or "." for source in zoo.good]
    assert counted == {name: expected.count(name) for name in expected}


def test_small_photos_are_enlarged_and_counted(zoo: Zoo) -> None:
    assert zoo.shards.manifest["totals"]["enlarged"] == len(zoo.enlarged) == 2
    assert re.search(r"\b2 [\w ]*upscaled", zoo.done.stdout)


def test_other_files_and_pipes_are_ignored_and_counted(zoo: Zoo) -> None:
    assert f"{zoo.num_others} other files ignored" in zoo.done.stdout
    assert not any("pipe" in path for path in zoo.shards.failures)


def test_shapes_of_all_samples_fit_the_scale(zoo: Zoo) -> None:
    for samples in zoo.shards.samples.values():
        for sample in samples:
            assert sample["hr"].shape == sample["up"].shape == (SIZE, SIZE, 3)
            assert sample["lr"].shape == (SIZE // 4, SIZE // 4, 3)
            assert sample["hr"].dtype == sample["lr"].dtype == sample["up"].dtype == np.uint8


# ---- names on the terminal


def test_a_failing_photo_with_a_newline_in_its_name_still_gets_one_line(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    put(tmp_path / "in", "bad/two\nlines\x1b[31m.jpg", b"x")
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0
    assert len(spoken_lines(done)) == 1
    assert "\x1b" not in done.stderr
    assert read_shards(tmp_path / "out").failures == {"bad/two\nlines\x1b[31m.jpg": NOT_AN_IMAGE}


def test_names_that_the_terminal_cannot_show_do_not_end_the_run(tmp_path: Path) -> None:
    """Python's stdout refuses them wherever the locale is not C: in en_US.UTF-8, for one."""
    photos = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\xff"))
    folder_of(photos, good=2, bad=0)
    put(photos, b"bad/\xfe.jpg", b"x")
    done = run("-i", photos, "-o", tmp_path / "out", env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
    assert_all_accounted_for(read_shards(tmp_path / "out"), {"good/0.png", "good/1.png", "bad/\udcfe.jpg"})


# ---- links and special files


def test_loops_of_folder_links_are_counted_and_not_followed_for_ever(tmp_path: Path) -> None:
    put(tmp_path / "in", "a/deep/photo.png", png(0))
    put(tmp_path / "in", "b/photo.png", png(1))
    (tmp_path / "in" / "a" / "deep" / "up").symlink_to("../..")
    (tmp_path / "in" / "a" / "here").symlink_to(".")
    (tmp_path / "in" / "top").symlink_to(tmp_path / "in")
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "3 links to already listed folders not followed" in done.stdout
    assert_all_accounted_for(read_shards(tmp_path / "out"), {"a/deep/photo.png", "b/photo.png"})


def test_a_link_to_itself_is_a_failure_and_no_more(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    (tmp_path / "in" / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "in" / "one.jpg").symlink_to("two.jpg")
    (tmp_path / "in" / "two.jpg").symlink_to("one.jpg")
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    shards = read_shards(tmp_path / "out")
    reason = "cannot be read: Too many levels of symbolic links"
    assert shards.failures == dict.fromkeys(["one.jpg", "self.jpg", "two.jpg"], reason)
    assert set(shards.samples) == {"good/0.png", "good/1.png"}


def test_a_looping_link_that_is_no_photo_is_ignored(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    (tmp_path / "in" / "loop").symlink_to("loop")
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert_all_accounted_for(read_shards(tmp_path / "out"), {"good/0.png", "good/1.png"})


def test_folders_that_all_link_to_each_other_do_not_multiply_their_photos(tmp_path: Path) -> None:
    """n folders with links to all the others have more than n! paths: ten such folders would never end."""
    names = [f"class{number}" for number in range(5)]
    for seed, name in enumerate(names):
        put(tmp_path / "in", f"{name}/photo.png", png(seed))
        for other in set(names) - {name}:
            (tmp_path / "in" / name / f"see_{other}").symlink_to(f"../{other}")
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    num_folders_and_links = 5 + 5 * 4
    assert read_shards(tmp_path / "out").manifest["totals"]["photos"] <= num_folders_and_links


def test_a_link_to_a_folder_above_the_input_brings_no_photo_twice(tmp_path: Path) -> None:
    put(tmp_path / "parent", "in/photo.png", png(0))
    put(tmp_path / "parent", "beside/photo.png", png(1))
    (tmp_path / "parent" / "in" / "up").symlink_to("..")
    assert run("-i", tmp_path / "parent" / "in", "-o", tmp_path / "out").returncode == 0
    assert_all_accounted_for(read_shards(tmp_path / "out"), {"photo.png", "up/beside/photo.png"})


def test_a_folder_that_two_links_reach_is_entered_once(tmp_path: Path) -> None:
    put(tmp_path, "set/class/photo.png", png(0))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").symlink_to(tmp_path / "set" / "class")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "set")
    assert run("-i", tmp_path / "in", "-o", tmp_path / "out").returncode == 0
    assert read_shards(tmp_path / "out").manifest["totals"]["photos"] == 1


def test_linked_photos_and_folders_are_used(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/photo.png", png(0))
    put(tmp_path, "single.png", png(1))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "class").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "linked.png").symlink_to(tmp_path / "single.png")
    assert run("-i", tmp_path / "in", "-o", tmp_path / "out").returncode == 0
    shards = read_shards(tmp_path / "out")
    assert_all_accounted_for(shards, {"class/photo.png", "linked.png"})
    assert np.array_equal(shards.hr("class/photo.png"), colours(0))
    assert shards.samples["class/photo.png"][0]["class"] == "class"


def test_a_pipe_is_ignored_and_nothing_waits_for_it(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png", png(0))
    os.mkfifo(tmp_path / "in" / "x.jpg")
    (tmp_path / "in" / "linked.jpg").symlink_to("x.jpg")
    (tmp_path / "in" / "device.jpg").symlink_to("/dev/zero")
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out", timeout=20)
    assert done.returncode == 0
    assert "3 other files ignored" in done.stdout


def without_rights() -> None:
    """Take from root, in a process that is about to start a program, the right to read and enter everything."""
    pr_capbset_drop, cap_dac_override, cap_dac_read_search = 24, 1, 2
    if os.getuid() == 0:
        for capability in (cap_dac_override, cap_dac_read_search):
            assert ctypes.CDLL(None).prctl(pr_capbset_drop, capability, 0, 0, 0) == 0


def test_an_unreadable_photo_is_a_failure(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    put(tmp_path / "in", "good/secret.png", png(3))
    (tmp_path / "in" / "good" / "secret.png").chmod(0)
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out", preexec_fn=without_rights)
    assert done.returncode == 0, done.stderr
    shards = read_shards(tmp_path / "out")
    assert shards.failures == {"good/secret.png": "cannot be read: Permission denied"}
    assert_all_accounted_for(shards, {"good/0.png", "good/1.png", "good/secret.png"})


def test_an_unreadable_folder_is_refused_by_name_and_not_passed_over(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    (tmp_path / "in" / "secret").mkdir(mode=0)
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out", preexec_fn=without_rights)
    (tmp_path / "in" / "secret").chmod(0o755)
    assert_refused(
        done, f"cannot list {tmp_path}/in/secret: Permission denied", "Fix its permissions (chmod u+rx), or move it out"
    )


@pytest.mark.parametrize("target", ["secret/photo.png", "secret/class"])
def test_a_link_into_an_unreadable_folder_is_named(tmp_path: Path, target: str) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    put(tmp_path, "secret/photo.png", png(3))
    put(tmp_path, "secret/class/photo.png", png(4))
    (tmp_path / "in" / "linked.png").symlink_to(tmp_path / target)
    (tmp_path / "secret").chmod(0)
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out", preexec_fn=without_rights)
    (tmp_path / "secret").chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert read_shards(tmp_path / "out").failures == {"linked.png": "cannot be read: Permission denied"}


@pytest.mark.parametrize("fit", ["cover", "tile"])
def test_a_path_that_is_too_long_is_one_failure(tmp_path: Path, fit: str) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    too_long = f"{deep_folder(tmp_path / 'in')}/photo.jpg"
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out", "--fit", fit)
    assert done.returncode == 0, done.stderr
    shards = read_shards(tmp_path / "out")
    assert shards.failures == {too_long: "cannot be read: File name too long"}
    assert_all_accounted_for(shards, {"good/0.png", "good/1.png", too_long})


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    (tmp_path / "locked").mkdir(mode=0o555)
    done = run("-i", tmp_path / "in", "-o", tmp_path / "locked" / "out", preexec_fn=without_rights)
    assert_refused(done, f"cannot write to {tmp_path}/locked/out: Permission denied. Pass another --output.")


# ---- memory


@pytest.mark.parametrize("fit", ["cover", "tile", "stretch"])
def test_a_bomb_costs_no_memory_and_changes_no_plan(tmp_path: Path, fit: str) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    put(tmp_path / "in", "bad/bomb.png", bomb())
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out", "--fit", fit, preexec_fn=little_memory, env=one_thread())
    assert done.returncode == 0, done.stderr
    assert read_shards(tmp_path / "out").failures == {"bad/bomb.png": TOO_LARGE}
    planned = re.search(r"\((?:about )?([\d,]+) samples\)", done.stdout)
    assert planned and int(planned[1].replace(",", "")) <= 3


@pytest.mark.parametrize("num_bytes", [16 << 30, 1_900_000_000])
def test_a_photo_larger_than_memory_is_a_failure_and_the_run_goes_on(tmp_path: Path, num_bytes: int) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    with open(tmp_path / "in" / "endless.jpg", "wb") as file:
        file.truncate(num_bytes)  # takes no room on the disk
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out", preexec_fn=little_memory, env=one_thread())
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert_all_accounted_for(read_shards(tmp_path / "out"), {"good/0.png", "good/1.png", "endless.jpg"})


def one_thread() -> dict[str, str]:
    """BLAS reserves address space for every core."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1"}


# ---- how many may fail


@pytest.fixture(scope="module")
def half_bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 12 good photos and 11 bad ones in `in`, and its shards in `out`."""
    root = tmp_path_factory.mktemp("half_bad")
    folder_of(root / "in", good=12, bad=11)
    run("-i", root / "in", "-o", root / "out")
    return root


@pytest.mark.parametrize("limit", [None, 10, 0, "47%", "0%"])
def test_more_failures_than_allowed_end_with_1_and_whole_shards(half_bad: Path, tmp_path: Path, limit: object) -> None:
    output = tmp_path / "out"
    done = run("-i", half_bad / "in", "-o", output, *(() if limit is None else ("--max-failures", limit)))
    allowed = {None: 10, "47%": 10, "0%": 0}.get(limit, limit)
    assert done.returncode == 1
    first, error = spoken_lines(done)
    assert first.startswith(f"11 of 23 photos failed (--max-failures: {allowed}), e.g. bad/0.jpg: {NOT_AN_IMAGE}.")
    assert error.startswith(f"Error: 11 photos failed, more than the {allowed} that --max-failures allows.")
    assert "complete and usable without them. Fix or remove these photos, or raise --max-failures." in error
    shards = read_shards(output)
    assert set(shards.samples) == {f"good/{number}.png" for number in range(12)}
    assert_all_accounted_for(shards, set(shards.samples) | {f"bad/{number}.jpg" for number in range(11)})
    assert_verified(output)


@pytest.mark.parametrize("limit", [11, "48%", "100%"])
def test_failures_within_the_limit_end_with_0_and_one_line(half_bad: Path, limit: object) -> None:
    done = run("-i", half_bad / "in", "-o", half_bad / "out", "--max-failures", limit)
    assert done.returncode == 0, done.stderr
    (line,) = spoken_lines(done)
    assert line.startswith("11 of 23 photos failed (--max-failures: ")


def test_an_up_to_date_run_still_tells_of_too_many_failures(half_bad: Path) -> None:
    done = run("-i", half_bad / "in", "-o", half_bad / "out")
    assert "shards are up to date" in done.stdout
    assert done.returncode == 1
    assert "11 photos failed, more than the 10 that --max-failures allows" in done.stderr


def test_ten_failures_are_always_allowed(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=1, bad=10)
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0
    assert "10 of 11 photos failed (--max-failures: 10)" in done.stderr


def test_failures_are_counted_once_however_many_scales(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=10)
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out", "-s", 2, 3, 4)
    assert done.returncode == 0
    assert "10 of 12 photos failed (--max-failures: 10)" in done.stderr
    for scale in (2, 3, 4):
        shards = read_shards(tmp_path / "out", scale)
        assert len(shards.failures) == 10 and len(shards.samples) == 2
    stats = json.loads((tmp_path / "out" / "processing_stats.json").read_text())
    assert stats["total_processed"] == 12 and stats["total_failed"] == 10


def test_nothing_but_bad_photos_ends_with_1_and_reasons(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=0, bad=3)
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "no photo produced a sample. The manifest lists the reason for each." in done.stderr
    shards = read_shards(tmp_path / "out")
    assert shards.failures == {f"bad/{number}.jpg": NOT_AN_IMAGE for number in range(3)}
    assert_all_accounted_for(shards, set(shards.failures))


def test_a_pool_of_workers_gives_the_same_samples_and_failures(half_bad: Path, tmp_path: Path) -> None:
    done = run("-i", half_bad / "in", "-o", tmp_path / "out", "--workers", 2)
    assert done.returncode == 1
    here, there = (folder / "out" / "scale_4x" / "manifest.json" for folder in (half_bad, tmp_path))
    assert here.read_bytes() == there.read_bytes()


# ---- photos smaller than a tile


def test_photos_smaller_than_a_tile_are_skipped_by_name_and_do_not_fail(tmp_path: Path) -> None:
    sizes = {"low.png": (SIZE - 1, 200), "narrow.png": (200, SIZE - 1), "one.png": (1, 1)}
    for name, size in sizes.items():
        put(tmp_path / "in", name, saved(picture(0, *size), "PNG"))
    put(tmp_path / "in", "just.png", png(1))
    put(tmp_path / "in", "large.png", saved(picture(2, 128, 150), "PNG"))
    put(tmp_path / "in", "bad.jpg", b"x")
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out", "--fit", "tile")
    assert done.returncode == 0, done.stderr
    assert ", 3 skipped (smaller than a tile), 1 failed\n" in done.stdout
    shards = read_shards(tmp_path / "out")
    assert shards.skipped == dict.fromkeys(sizes, f"smaller than a tile of {SIZE} px")
    assert shards.failures == {"bad.jpg": NOT_AN_IMAGE}
    assert shards.manifest["totals"]["enlarged"] == 0
    assert_all_accounted_for(shards, {*sizes, "just.png", "large.png", "bad.jpg"})
    assert np.array_equal(shards.hr("just.png"), colours(1))
    large = colours(2, 128, 150)
    assert len(shards.samples["large.png"]) == 6  # 2 rows; columns at 0, 64 and 86
    for sample in shards.samples["large.png"]:
        x, y, width, height = sample["box"]
        assert np.array_equal(sample["hr"], large[y : y + height, x : x + width])


def test_nothing_but_small_photos_ends_with_1_and_says_so(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png", saved(picture(0, 30, 30), "PNG"))
    done = run("-i", tmp_path / "in", "-o", tmp_path / "out", "--fit", "tile")
    assert done.returncode == 1
    assert "no photo produced a sample. The manifest lists the reason for each." in done.stderr
    assert set(read_shards(tmp_path / "out").skipped) == {"a.png"}


# ---- folders that are no folders of photos


def no_folder(root: Path) -> Path:
    return root / "missing"


def empty_folder(root: Path) -> Path:
    (root / "empty").mkdir()
    return root / "empty"


def folder_without_photos(root: Path) -> Path:
    for name in ("notes.txt", "deep/clip.mp4", "deep/photo.jpg.part"):
        put(root / "in", name, b"x")
    return root / "in"


def only_a_pipe(root: Path) -> Path:
    (root / "in").mkdir()
    os.mkfifo(root / "in" / "x.jpg")
    return root / "in"


def a_file(root: Path) -> Path:
    put(root, "photo.jpg", jpeg(0))
    return root / "photo.jpg"


def dangling_link(root: Path) -> Path:
    (root / "in").symlink_to("nowhere")
    return root / "in"


def link_to_itself(root: Path) -> Path:
    (root / "in").symlink_to("in")
    return root / "in"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_folder, ["no such folder: ", "Pass the folder of photos as --input"]),
        (dangling_link, ["no such folder: ", "Pass the folder of photos as --input"]),
        (link_to_itself, ["Pass the folder of photos as --input"]),
        (a_file, ["photo.jpg is a file", "--input expects a folder of photos"]),
        (
            empty_folder,
            ["no photos in ", "empty (other files: 0)", "Photos are files with the extensions .avif", ".jpg"],
        ),
        (
            folder_without_photos,
            ["no photos in ", "(other files: 3)", "Photos are files with the extensions .avif", ".png"],
        ),
        (only_a_pipe, ["no photos in ", "(other files: 1)"]),
    ],
)
def test_an_input_without_photos_is_refused_with_what_to_do(
    tmp_path: Path, make: Callable[[Path], Path], words: list[str]
) -> None:
    done = run("-i", make(tmp_path), "-o", tmp_path / "out")
    assert_refused(done, *words)
    assert not list((tmp_path / "out").glob("scale_*"))


def test_an_input_that_has_become_empty_does_not_cost_the_shards(tmp_path: Path) -> None:
    """A disk that is not mounted looks like an empty folder."""
    folder_of(tmp_path / "in", good=2, bad=0)
    assert run("-i", tmp_path / "in", "-o", tmp_path / "out").returncode == 0
    for path in sorted((tmp_path / "in").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert_refused(run("-i", tmp_path / "in", "-o", tmp_path / "out"), "no photos in ")
    assert len(read_shards(tmp_path / "out").samples) == 2
    assert_verified(tmp_path / "out")


@pytest.mark.parametrize("output", ["file", "file/inside"])
def test_an_output_that_is_a_file_is_refused(tmp_path: Path, output: str) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    put(tmp_path, "file", b"mine")
    assert_refused(run("-i", tmp_path / "in", "-o", tmp_path / output), "cannot write to ", "Pass another --output")
    assert (tmp_path / "file").read_bytes() == b"mine"


# ---- options that cannot be

SCALES = "expected integers from 2 to 8, e.g. --scales 2 3 4"
METHODS = ("'--method'", "'nearest', 'linear', 'cubic', 'area', 'lanczos', 'matlab'")
SHARE = "expected a fraction above 0 and up to 1"
LIMIT = "expected a number of photos such as 50, or a percentage such as 2%"

WRONG_OPTIONS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("-s", "2.5"): ("'2.5'", SCALES),
    ("-s", "x"): ("'x'", SCALES),
    ("-s", "9"): ("'9'", SCALES),
    ("-s", "1"): ("'1'", SCALES),
    ("-s", "0"): ("'0'", SCALES),
    ("-s", "-4"): ("'-4'", SCALES),
    ("-s", ""): ("''", SCALES),
    ("-s", "2,x"): ("'2,x'", SCALES),
    ("-s", "2", "3", "9"): ("'9'", SCALES),
    ("--scales=2,16",): ("'2,16'", SCALES),
    ("-s",): ("'-s' requires an argument",),
    ("--method", "blur"): ("'blur'", *METHODS),
    ("--method", ""): METHODS,
    ("--fit", "crop"): ("'crop'", "'--fit'", "'cover', 'tile', 'stretch'"),
    ("--codec", "jpg"): ("'jpg'", "'--codec'", "'npy', 'png', 'webp'"),
    ("--sample", "0"): ("--sample 0.0", SHARE),
    ("--sample", "1.5"): ("--sample 1.5", SHARE),
    ("--sample", "-1"): ("--sample -1.0", SHARE),
    ("--sample", "nan"): ("--sample nan", SHARE),
    ("--sample", "all"): ("'--sample'", "'all' is not a valid float"),
    ("--size", "5"): ("--size 5: expected 16 to 8192 px",),
    ("--size", "0"): ("--size 0: expected 16 to 8192 px",),
    ("--size", "100000"): ("--size 100000: expected 16 to 8192 px",),
    ("--size", "64.5"): ("'--size'", "'64.5' is not a valid integer"),
    ("--tile-step", "32"): ("--tile-step requires --fit tile",),
    ("--fit", "tile", "--tile-step", "0"): ("--tile-step 0: expected 1 to 64 px (at most --size)",),
    ("--fit", "tile", "--tile-step", "65"): ("--tile-step 65: expected 1 to 64 px (at most --size)",),
    ("--shard-bytes", "0"): ("--shard-bytes 0: expected a size such as 256MB",),
    ("--shard-bytes", "many"): ("'many': expected a number of bytes such as 256MB, 1GiB or 1000000",),
    ("--shard-bytes", "10XB"): ("'10XB': expected a number of bytes such as 256MB, 1GiB or 1000000",),
    ("--shard-bytes", "-5MB"): ("'-5MB': expected a number of bytes such as 256MB, 1GiB or 1000000",),
    ("--max-failures", "x"): ("'x'", LIMIT),
    ("--max-failures", "-1"): ("'-1'", LIMIT),
    ("--max-failures", "1.5"): ("'1.5'", LIMIT),
    ("--max-failures", "%"): ("'%'", LIMIT),
    ("--val-fraction", "1"): ("--val-fraction 1.0: expected a fraction from 0 to below 1",),
    ("--val-fraction", "-0.1"): ("--val-fraction -0.1: expected a fraction from 0 to below 1",),
    ("--val-fraction", "nan"): ("--val-fraction nan: expected a fraction from 0 to below 1",),
    ("--seed", "x"): ("'--seed'", "'x' is not a valid integer"),
    ("--workers", "-1"): ("'--workers'", "-1 is not in the range x>=0"),
    ("--wrokers", "2"): ("No such option '--wrokers'", "'--workers'"),
    ("photos",): ("unexpected extra argument (photos)",),
}


@pytest.mark.parametrize("options", WRONG_OPTIONS, ids=" ".join)
def test_a_wrong_option_is_refused_with_the_choices(options: tuple[str, ...], tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=1, bad=0)
    assert_refused(run("-i", tmp_path / "in", "-o", tmp_path / "out", *options), *WRONG_OPTIONS[options])
    assert not (tmp_path / "out").exists()


def test_a_wrong_option_ends_the_process_with_2(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=1, bad=0)
    options = ("-s", "2.5")
    assert_refused(run("-i", tmp_path / "in", "-o", "out", *options, cwd=tmp_path), *WRONG_OPTIONS[options])


def test_an_input_whose_name_is_too_long_is_named(tmp_path: Path) -> None:
    for name in ("o" * 300, "/".join(["o" * 200] * 30)):
        done = run_cli("generate", "-i", tmp_path / name, "-o", tmp_path / "out", "-s", 4, "--auto")
        assert done.returncode == 2 and f"cannot list {tmp_path / name}: File name too long" in done.stderr
