"""Bad photos, unusual names and invalid options on the command line: every photo is accounted for."""

import ctypes
import io
import json
import os
import re
import resource
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import deep_folder, run_cli
from numpy.typing import NDArray
from odd_photos import bomb, png_16, saved
from PIL import Image, ImageOps

SIZE = 64
GENERATE = (sys.executable, "-m", "shardgen", "generate", "--auto", "--workers", "0", "--size", str(SIZE))
NOT_AN_IMAGE = "not an image, or its header is damaged"
TOO_LARGE = "too large: 30000 x 30000 px, the limit is 250,000,000 px"
Result = subprocess.CompletedProcess[str]


# ---- files


def colours(seed: int, height: int = SIZE, width: int = SIZE) -> NDArray[np.uint8]:
    """H x W x 3 uint8, different for every seed, without any symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    slopes = np.stack([x * 2, y * 2, (x + y) * 1], axis=-1) * 64 / max(height, width)
    return (slopes + np.random.default_rng(seed).integers(0, 100, slopes.shape)).astype(np.uint8)


def picture(seed: int, height: int = SIZE, width: int = SIZE) -> Image.Image:
    return Image.fromarray(colours(seed, height, width))


def jpeg(seed: int) -> bytes:
    return saved(picture(seed), "JPEG", quality=95)


def png(seed: int) -> bytes:
    return saved(picture(seed), "PNG")


def write(root: Path, name: str | bytes, content: bytes) -> str:
    """Write a file below `root`, and return its name as the manifest spells it."""
    path = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return os.fsdecode(name)


def folder_of(root: Path, good: int, bad: int) -> Path:
    for number in range(good):
        write(root, f"good/{number}.png", png(number))
    for number in range(bad):
        write(root, f"bad/{number}.jpg", b"no photo")
    return root


# ---- runs


def run(*args: object, **options: Any) -> Result:
    """Run `shardgen generate`; with `options`, in a subprocess with a timeout."""
    if not options:
        return run_cli(*GENERATE[3:], *args)
    command = [*GENERATE, *(str(arg) for arg in args)]
    return subprocess.run(
        command, **{"capture_output": True, "text": True, "errors": "surrogateescape", "timeout": 60, **options}
    )


# Options of `run` for a process with 2 GiB of address space, of which BLAS reserves some per thread.
LITTLE_MEMORY = {
    "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
    "env": {**os.environ, "OPENBLAS_NUM_THREADS": "1"},
}


def message_lines(result: Result) -> list[str]:
    """Return the lines on stderr other than progress."""
    lines = result.stderr.splitlines()
    return [line for line in lines if not re.match(r"[\d,]+/[\d,]+ photos, ", line)]


def assert_error(result: Result, *phrases: str) -> None:
    """Exit code 2 and an error message with all `phrases`, without a traceback."""
    assert "Traceback" not in result.stderr
    assert result.returncode == 2, result.stderr + result.stdout
    message = " ".join(result.stderr.split())
    assert "Error: " in message
    for word in phrases:
        assert word in message


@dataclass(frozen=True)
class Shards:
    """Output for one scale, read with tarfile, json and NumPy only."""

    manifest: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]  # by source: the JSON record, and pixels as `hr`, `lr`, `up`

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


def run_in(root: Path, *args: object, **options: Any) -> Result:
    return run("-i", root / "in", "-o", root / "out", *args, **options)


def generate_in(root: Path, *args: object, **options: Any) -> tuple[Result, Shards]:
    result = run_in(root, *args, **options)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    return result, read_shards(root / "out")


def assert_all_accounted_for(shards: Shards, photos: set[str]) -> None:
    """Every photo is exactly one of sample source, failure and skipped, and the totals agree."""
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
    result = run_cli("verify", output)
    assert result.returncode == 0, result.stderr
    assert "all intact" in result.stdout


# ---- one folder with all kinds of photos


@dataclass
class Zoo:
    """All kinds of photos, the expected outcome of each, and the run's output."""

    good: dict[str, NDArray[np.uint8]]  # HR image by name
    failing: dict[str, str]  # reason by name
    num_others: int = 0
    result: Result | None = None
    shards: Shards | None = None

    @property
    def photos(self) -> set[str]:
        return self.good.keys() | self.failing.keys()


NAMES = {
    "255 bytes": "n" * 251 + ".jpg",
    "255 bytes of Chinese": "照" * 83 + "ab.jpg",
    "300 bytes of path": "f" * 200 + "/" + "n" * 95 + ".jpg",
    "1000 bytes of path": "/".join(["f" * 199] * 4) + "/" + "n" * 196 + ".jpg",
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
    "no folder": "top.jpg",
    "nested folders": "twin/deep/er/a.jpg",
    "same name, another folder": "other/a.jpg",
    "same stem 1": "twin/a.jpg",
    "same stem 2": "twin/a.png",
}


def exact_photos() -> dict[str, tuple[bytes, NDArray[np.uint8]]]:
    """64 x 64 px photos by name: content and exact HR image."""
    levels = np.random.default_rng(1).integers(0, 65536, (SIZE, SIZE, 3), dtype=np.uint16)
    palette = picture(2).quantize(64)
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[:, 20:] = 255
    rgba = Image.fromarray(np.dstack([colours(3), alpha]), "RGBA")
    blended = np.where(alpha[:, :, None] == 0, 0, colours(3))
    grey = np.asarray(picture(4).convert("L"))
    rotated_exif = Image.Exif()
    rotated_exif[0x0112] = 6
    frames = [picture(seed).quantize(64) for seed in (5, 6)]
    animation = {"save_all": True, "append_images": frames[1:]}
    first = np.asarray(frames[0].convert("RGB"))
    return {
        "kinds/plain.png": (png(0), colours(0)),
        "kinds/png_named.jpg": (png(7), colours(7)),
        "kinds/jpeg_named.png": (jpeg(8), np.asarray(Image.open(io.BytesIO(jpeg(8))))),
        "kinds/grey.png": (saved(Image.fromarray(grey), "PNG"), grey[:, :, None].repeat(3, axis=2)),
        "kinds/palette.png": (saved(palette, "PNG"), np.asarray(palette.convert("RGB"))),
        "kinds/rgba.png": (saved(rgba, "PNG"), blended),
        "kinds/rgba.webp": (saved(rgba, "WEBP", lossless=True, exact=True), blended),
        "kinds/bits16.png": (png_16(levels), np.rint(levels / 257).astype(np.uint8)),
        "kinds/rotated.png": (
            saved(picture(9), "PNG", exif=rotated_exif),
            np.asarray(picture(9).transpose(Image.Transpose.ROTATE_270)),
        ),
        "kinds/rotated.tif": (
            saved(picture(10), "TIFF", exif=rotated_exif),
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


def lossy_photos() -> dict[str, bytes]:
    """64 x 64 px photos by name, whose HR image equals Pillow's decoding up to rounding."""
    rotated_exif = Image.Exif()
    rotated_exif[0x0112] = 8
    ink = np.random.default_rng(2).integers(0, 256, (8, 8, 4), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return {
        "kinds/plain.jpg": jpeg(20),
        "kinds/progressive.jpeg": saved(picture(21), "JPEG", progressive=True),
        "kinds/grey.jpg": saved(picture(22).convert("L"), "JPEG"),
        "kinds/cmyk.jpg": saved(Image.fromarray(ink, "CMYK"), "JPEG"),
        "kinds/rotated.jpg": saved(picture(23), "JPEG", exif=rotated_exif),
    }


def flat(*colour: int) -> NDArray[np.uint8]:
    return np.full((SIZE, SIZE, 3), colour, np.uint8)


def broken_photos() -> dict[str, tuple[bytes, str]]:
    intact_png = saved(picture(30, 90, 90), "PNG")
    intact_jpeg = saved(picture(31, 90, 90), "JPEG")
    progressive = saved(picture(32, 90, 90), "JPEG", progressive=True)
    levels = np.random.default_rng(3).integers(0, 65536, (SIZE, SIZE, 3), dtype=np.uint16)
    return {
        "bad/zero_bytes.jpg": (b"", "empty file"),
        "bad/zero_bytes.png": (b"", "empty file"),
        "bad/text.jpg": (b"This is no photo.\n", NOT_AN_IMAGE),
        "bad/page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", NOT_AN_IMAGE),
        "bad/half.jpg": (intact_jpeg[: len(intact_jpeg) // 2], "truncated JPEG"),
        "bad/nearly_whole.jpg": (intact_jpeg[:-2], "truncated JPEG"),
        "bad/half_with_end.jpg": (intact_jpeg[: len(intact_jpeg) // 2] + b"\xff\xd9", "truncated JPEG"),
        "bad/half_progressive.jpg": (progressive[: len(progressive) // 2], "truncated JPEG"),
        "bad/header_only.jpg": (intact_jpeg[:100], "truncated header"),
        "bad/half.png": (intact_png[: len(intact_png) // 2], "truncated PNG"),
        "bad/half_16_bit.png": (png_16(levels)[:10_000], "truncated PNG"),
        "bad/header_only.png": (intact_png[:20], "truncated header"),
        "bad/half.bmp": (saved(picture(33), "BMP")[:6000], "truncated BMP"),
        "bad/bomb.png": (bomb(30_000), TOO_LARGE),
        "bad/bomb_named.jpg": (bomb(30_000), TOO_LARGE),
        "bad/phone.heic": (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
            "HEIC is not supported; convert it to JPEG or PNG first",
        ),
    }


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    root = tmp_path_factory.mktemp("zoo")
    zoo = Zoo({}, {})
    for name, (content, pixels) in exact_photos().items():
        zoo.good[write(root / "in", name, content)] = pixels
    for name, content in lossy_photos().items():
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        zoo.good[write(root / "in", name, content)] = pixels
    for seed, name in enumerate(NAMES.values()):
        zoo.good[write(root / "in", name, png(100 + seed))] = colours(100 + seed)  # PNG content: exact pixels
    for name, (content, reason) in broken_photos().items():
        zoo.failing[write(root / "in", name, content)] = reason
    (root / "in" / "bad" / "dangling.jpg").symlink_to("nowhere.jpg")
    zoo.failing["bad/dangling.jpg"] = "cannot be read: No such file or directory"
    for name in ("notes.txt", "bad/Thumbs.db", "kinds/no_extension", "kinds/clip.mp4", "kinds/.jpg", "jpg"):
        write(root / "in", name, png(0))
        zoo.num_others += 1
    os.mkfifo(root / "in" / "bad" / "pipe.jpg")
    zoo.num_others += 1
    (root / "in" / "empty folder.jpg").mkdir()
    zoo.result = run("-i", root / "in", "-o", root / "out", "--max-failures", 30)
    zoo.shards = read_shards(root / "out")
    return zoo


def test_failures_of_every_kind_exit_0_with_one_line(zoo: Zoo) -> None:
    assert zoo.result.returncode == 0, zoo.result.stderr
    count, total = len(zoo.failing), len(zoo.photos)
    (line,) = message_lines(zoo.result)
    assert line.startswith(f"{count} of {total} photos failed (--max-failures: 30), e.g. bad/bomb.png: {TOO_LARGE}.")
    assert line.endswith("The manifest lists all of them.")
    assert f"{total - count} samples" in zoo.result.stdout
    assert re.search(rf"\b{count} [a-z ]*fail", zoo.result.stdout)


def test_every_photo_is_a_sample_or_a_failure_in_intact_shards(zoo: Zoo) -> None:
    assert_all_accounted_for(zoo.shards, zoo.photos)
    assert_verified(Path(zoo.result.args[zoo.result.args.index("-o") + 1]))


@pytest.mark.parametrize("name", [*broken_photos(), "bad/dangling.jpg"])
def test_bad_photo_is_a_failure_with_its_reason(zoo: Zoo, name: str) -> None:
    assert zoo.shards.failures.get(name) == zoo.failing[name]
    assert name not in zoo.shards.samples


@pytest.mark.parametrize(
    ("name", "tolerance"), [(name, 0) for name in exact_photos()] + [(name, 2) for name in lossy_photos()]
)
def test_every_kind_of_photo_yields_its_pixels(zoo: Zoo, name: str, tolerance: int) -> None:
    assert np.abs(zoo.shards.hr(name).astype(int) - zoo.good[name]).max() <= tolerance


@pytest.mark.parametrize("kind", NAMES)
def test_any_file_name_is_accepted_and_its_folder_is_the_class(zoo: Zoo, kind: str) -> None:
    name = os.fsdecode(NAMES[kind])
    assert np.array_equal(zoo.shards.hr(name), zoo.good[name])
    assert zoo.shards.samples[name][0]["class"] == (name.rpartition("/")[0] or ".")


def test_samples_are_counted_per_class(zoo: Zoo) -> None:
    counts: Counter[str] = Counter()
    for split in zoo.shards.manifest["splits"].values():
        counts.update(split["samples_per_class"])
    assert counts == Counter(source.rpartition("/")[0] or "." for source in zoo.good)


def test_small_photos_are_upscaled_and_counted(zoo: Zoo) -> None:
    assert zoo.shards.manifest["totals"]["enlarged"] == 2  # those one pixel wide
    assert re.search(r"\b2 [\w ]*upscaled", zoo.result.stdout)


def test_other_files_and_pipes_are_ignored_and_counted(zoo: Zoo) -> None:
    assert f"{zoo.num_others} other files ignored" in zoo.result.stdout
    assert not any("pipe" in path for path in zoo.shards.failures)


def test_image_shapes_match_the_scale(zoo: Zoo) -> None:
    for samples in zoo.shards.samples.values():
        for sample in samples:
            assert sample["hr"].shape == sample["up"].shape == (SIZE, SIZE, 3)
            assert sample["lr"].shape == (SIZE // 4, SIZE // 4, 3)
            assert sample["hr"].dtype == sample["lr"].dtype == sample["up"].dtype == np.uint8


# ---- names on the terminal


def test_newline_in_a_failing_name_keeps_one_line(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    write(tmp_path / "in", "bad/two\nlines\x1b[31m.jpg", b"x")
    result, shards = generate_in(tmp_path)
    assert len(message_lines(result)) == 1
    assert "\x1b" not in result.stderr
    assert shards.failures == {"bad/two\nlines\x1b[31m.jpg": NOT_AN_IMAGE}


def test_unprintable_names_do_not_abort_the_run(tmp_path: Path) -> None:
    """Python's stdout cannot encode them in most locales, such as en_US.UTF-8."""
    photos = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\xff"))
    folder_of(photos, good=2, bad=0)
    write(photos, b"bad/\xfe.jpg", b"x")
    result = run("-i", photos, "-o", tmp_path / "out", env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
    assert "Traceback" not in result.stderr
    assert result.returncode == 0
    assert_all_accounted_for(read_shards(tmp_path / "out"), {"good/0.png", "good/1.png", "bad/\udcfe.jpg"})


# ---- links and special files


def test_folder_link_loops_are_counted_and_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "in", "a/deep/photo.png", png(0))
    write(tmp_path / "in", "b/photo.png", png(1))
    (tmp_path / "in" / "a" / "deep" / "up").symlink_to("../..")
    (tmp_path / "in" / "a" / "here").symlink_to(".")
    (tmp_path / "in" / "top").symlink_to(tmp_path / "in")
    result, shards = generate_in(tmp_path)
    assert "3 links to already listed folders not followed" in result.stdout
    assert_all_accounted_for(shards, {"a/deep/photo.png", "b/photo.png"})


def test_self_referencing_photo_link_is_a_failure(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    (tmp_path / "in" / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "in" / "one.jpg").symlink_to("two.jpg")
    (tmp_path / "in" / "two.jpg").symlink_to("one.jpg")
    (tmp_path / "in" / "loop").symlink_to("loop")
    _, shards = generate_in(tmp_path)
    reason = "cannot be read: Too many levels of symbolic links"
    assert shards.failures == dict.fromkeys(["one.jpg", "self.jpg", "two.jpg"], reason)
    assert_all_accounted_for(shards, {"good/0.png", "good/1.png", *shards.failures})


def test_mutually_linked_folders_do_not_multiply_photos(tmp_path: Path) -> None:
    """n folders that link to all others have more than n! paths."""
    names = [f"class{number}" for number in range(5)]
    for seed, name in enumerate(names):
        write(tmp_path / "in", f"{name}/photo.png", png(seed))
        for other in set(names) - {name}:
            (tmp_path / "in" / name / f"see_{other}").symlink_to(f"../{other}")
    _, shards = generate_in(tmp_path)
    num_folders_and_links = 5 + 5 * 4
    assert shards.manifest["totals"]["photos"] <= num_folders_and_links


def test_link_to_a_parent_folder_lists_no_photo_twice(tmp_path: Path) -> None:
    write(tmp_path / "parent", "in/photo.png", png(0))
    write(tmp_path / "parent", "beside/photo.png", png(1))
    (tmp_path / "parent" / "in" / "up").symlink_to("..")
    assert run("-i", tmp_path / "parent" / "in", "-o", tmp_path / "out").returncode == 0
    assert_all_accounted_for(read_shards(tmp_path / "out"), {"photo.png", "up/beside/photo.png"})


def test_folder_reached_by_two_links_is_listed_once(tmp_path: Path) -> None:
    write(tmp_path, "set/class/photo.png", png(0))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").symlink_to(tmp_path / "set" / "class")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "set")
    _, shards = generate_in(tmp_path)
    assert shards.manifest["totals"]["photos"] == 1


def test_linked_photos_and_folders_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/photo.png", png(0))
    write(tmp_path, "single.png", png(1))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "class").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "linked.png").symlink_to(tmp_path / "single.png")
    _, shards = generate_in(tmp_path)
    assert_all_accounted_for(shards, {"class/photo.png", "linked.png"})
    assert np.array_equal(shards.hr("class/photo.png"), colours(0))
    assert shards.samples["class/photo.png"][0]["class"] == "class"


def test_pipes_and_devices_are_ignored_without_blocking(tmp_path: Path) -> None:
    write(tmp_path / "in", "a.png", png(0))
    os.mkfifo(tmp_path / "in" / "x.jpg")
    (tmp_path / "in" / "linked.jpg").symlink_to("x.jpg")
    (tmp_path / "in" / "device.jpg").symlink_to("/dev/zero")
    result, _ = generate_in(tmp_path, timeout=20)
    assert "3 other files ignored" in result.stdout


def drop_read_privileges() -> None:
    """As root, drop the capabilities that bypass file permissions. For `preexec_fn`."""
    pr_capbset_drop, cap_dac_override, cap_dac_read_search = 24, 1, 2
    if os.getuid() == 0:
        for capability in (cap_dac_override, cap_dac_read_search):
            assert ctypes.CDLL(None).prctl(pr_capbset_drop, capability, 0, 0, 0) == 0


def test_unreadable_photo_is_a_failure(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    write(tmp_path / "in", "good/secret.png", png(3))
    (tmp_path / "in" / "good" / "secret.png").chmod(0)
    _, shards = generate_in(tmp_path, preexec_fn=drop_read_privileges)
    assert shards.failures == {"good/secret.png": "cannot be read: Permission denied"}
    assert_all_accounted_for(shards, {"good/0.png", "good/1.png", "good/secret.png"})


def test_unreadable_folder_is_an_error(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    (tmp_path / "in" / "secret").mkdir(mode=0)
    result = run_in(tmp_path, preexec_fn=drop_read_privileges)
    (tmp_path / "in" / "secret").chmod(0o755)
    assert_error(
        result,
        f"cannot list {tmp_path}/in/secret: Permission denied",
        "; fix its permissions (chmod u+rx), or move it out",
    )


@pytest.mark.parametrize("target", ["secret/photo.png", "secret/class"])
def test_link_into_an_unreadable_folder_is_a_failure(tmp_path: Path, target: str) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    write(tmp_path, "secret/photo.png", png(3))
    write(tmp_path, "secret/class/photo.png", png(4))
    (tmp_path / "in" / "linked.png").symlink_to(tmp_path / target)
    (tmp_path / "secret").chmod(0)
    result = run_in(tmp_path, preexec_fn=drop_read_privileges)
    (tmp_path / "secret").chmod(0o755)
    assert result.returncode == 0, result.stderr
    assert read_shards(tmp_path / "out").failures == {"linked.png": "cannot be read: Permission denied"}


@pytest.mark.parametrize("fit", ["cover", "tile"])
def test_too_long_path_is_one_failure(tmp_path: Path, fit: str) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    too_long = f"{deep_folder(tmp_path / 'in')}/photo.jpg"
    _, shards = generate_in(tmp_path, "--fit", fit)
    assert shards.failures == {too_long: "cannot be read: File name too long"}
    assert_all_accounted_for(shards, {"good/0.png", "good/1.png", too_long})


def test_unwritable_output_is_an_error(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    (tmp_path / "locked").mkdir(mode=0o555)
    result = run("-i", tmp_path / "in", "-o", tmp_path / "locked" / "out", preexec_fn=drop_read_privileges)
    assert_error(result, f"cannot write to {tmp_path}/locked/out: Permission denied; pass another folder")


# ---- memory


@pytest.mark.parametrize("fit", ["cover", "tile", "stretch"])
def test_decompression_bomb_takes_no_memory_and_no_tiles(tmp_path: Path, fit: str) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    write(tmp_path / "in", "bad/bomb.png", bomb(30_000))
    result, shards = generate_in(tmp_path, "--fit", fit, **LITTLE_MEMORY)
    assert shards.failures == {"bad/bomb.png": TOO_LARGE}
    planned = re.search(r"\((?:about )?([\d,]+) samples\)", result.stdout)
    assert planned and int(planned[1].replace(",", "")) <= 3


@pytest.mark.parametrize("num_bytes", [16 << 30, 1_900_000_000])
def test_photo_larger_than_memory_is_a_failure(tmp_path: Path, num_bytes: int) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    with open(tmp_path / "in" / "endless.jpg", "wb") as file:
        file.truncate(num_bytes)  # sparse
    _, shards = generate_in(tmp_path, **LITTLE_MEMORY)
    assert_all_accounted_for(shards, {"good/0.png", "good/1.png", "endless.jpg"})


# ---- limits on failures


@pytest.fixture(scope="module")
def half_bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 12 good photos and 11 bad ones in `in`, and its shards in `out`."""
    root = tmp_path_factory.mktemp("half_bad")
    folder_of(root / "in", good=12, bad=11)
    run("-i", root / "in", "-o", root / "out")
    return root


@pytest.mark.parametrize("limit", [None, 10, 0, "47%", "0%"])
def test_more_failures_than_allowed_exit_1_with_intact_shards(half_bad: Path, tmp_path: Path, limit: object) -> None:
    output = tmp_path / "out"
    result = run("-i", half_bad / "in", "-o", output, *(() if limit is None else ("--max-failures", limit)))
    allowed = {None: 10, "47%": 10, "0%": 0}.get(limit, limit)
    assert result.returncode == 1
    first, error = message_lines(result)
    assert first.startswith(f"11 of 23 photos failed (--max-failures: {allowed}), e.g. bad/0.jpg: {NOT_AN_IMAGE}.")
    assert error.startswith(f"Error: 11 photos failed, more than the {allowed} that --max-failures allows.")
    assert "complete and usable without them. Fix or remove these photos, or raise --max-failures." in error
    shards = read_shards(output)
    assert set(shards.samples) == {f"good/{number}.png" for number in range(12)}
    assert_all_accounted_for(shards, set(shards.samples) | {f"bad/{number}.jpg" for number in range(11)})
    assert_verified(output)


@pytest.mark.parametrize("limit", [11, "48%", "100%"])
def test_failures_within_the_limit_exit_0_with_one_line(half_bad: Path, limit: object) -> None:
    result = run("-i", half_bad / "in", "-o", half_bad / "out", "--max-failures", limit)
    assert result.returncode == 0, result.stderr
    (line,) = message_lines(result)
    assert line.startswith("11 of 23 photos failed (--max-failures: ")


def test_up_to_date_run_still_reports_too_many_failures(half_bad: Path) -> None:
    result = run("-i", half_bad / "in", "-o", half_bad / "out")
    assert "shards are up to date" in result.stdout
    assert result.returncode == 1
    assert "11 photos failed, more than the 10 that --max-failures allows" in result.stderr


def test_ten_failures_are_allowed_and_counted_once_for_all_scales(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=2, bad=10)
    result, shards = generate_in(tmp_path, "-s", 2, 3, 4)
    assert "10 of 12 photos failed (--max-failures: 10)" in result.stderr
    for scale in (2, 3, 4):
        shards = read_shards(tmp_path / "out", scale)
        assert len(shards.failures) == 10 and len(shards.samples) == 2
    stats = json.loads((tmp_path / "out" / "processing_stats.json").read_text())
    assert stats["total_processed"] == 12 and stats["total_failed"] == 10


def test_only_bad_photos_exit_1_with_reasons(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=0, bad=3)
    result = run_in(tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "no photo produced a sample; the manifest lists the reasons" in result.stderr
    shards = read_shards(tmp_path / "out")
    assert shards.failures == {f"bad/{number}.jpg": NOT_AN_IMAGE for number in range(3)}
    assert_all_accounted_for(shards, set(shards.failures))


def test_worker_pool_gives_the_same_manifest(half_bad: Path, tmp_path: Path) -> None:
    result = run("-i", half_bad / "in", "-o", tmp_path / "out", "--workers", 2)
    assert result.returncode == 1
    one_process, pool = (folder / "out" / "scale_4x" / "manifest.json" for folder in (half_bad, tmp_path))
    assert one_process.read_bytes() == pool.read_bytes()


# ---- photos smaller than a tile


def test_photos_smaller_than_a_tile_are_skipped(tmp_path: Path) -> None:
    sizes = {"low.png": (SIZE - 1, 200), "narrow.png": (200, SIZE - 1), "one.png": (1, 1)}
    for name, size in sizes.items():
        write(tmp_path / "in", name, saved(picture(0, *size), "PNG"))
    write(tmp_path / "in", "just.png", png(1))
    write(tmp_path / "in", "large.png", saved(picture(2, 128, 150), "PNG"))
    write(tmp_path / "in", "bad.jpg", b"x")
    result, shards = generate_in(tmp_path, "--fit", "tile")
    assert ", 3 skipped (smaller than a tile), 1 failed\n" in result.stdout
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


def test_only_small_photos_exit_1(tmp_path: Path) -> None:
    write(tmp_path / "in", "a.png", saved(picture(0, 30, 30), "PNG"))
    result = run_in(tmp_path, "--fit", "tile")
    assert result.returncode == 1
    assert "no photo produced a sample; the manifest lists the reasons" in result.stderr
    assert set(read_shards(tmp_path / "out").skipped) == {"a.png"}


# ---- inputs without photos


def missing_folder(root: Path) -> Path:
    return root / "missing"


def empty_folder(root: Path) -> Path:
    (root / "empty").mkdir()
    return root / "empty"


def folder_without_photos(root: Path) -> Path:
    for name in ("notes.txt", "deep/clip.mp4", "deep/photo.jpg.part"):
        write(root / "in", name, b"x")
    return root / "in"


def only_a_pipe(root: Path) -> Path:
    (root / "in").mkdir()
    os.mkfifo(root / "in" / "x.jpg")
    return root / "in"


def file_instead_of_folder(root: Path) -> Path:
    return root / write(root, "photo.jpg", jpeg(0))


def dangling_link(root: Path) -> Path:
    (root / "in").symlink_to("nowhere")
    return root / "in"


def self_link(root: Path) -> Path:
    (root / "in").symlink_to("in")
    return root / "in"


@pytest.mark.parametrize(
    ("make", "phrases"),
    [
        (missing_folder, ["no such folder: ", "; pass the folder of photos as --input (make: INPUT=...)"]),
        (dangling_link, ["no such folder: ", "; pass the folder of photos as --input (make: INPUT=...)"]),
        (self_link, ["; pass the folder of photos as --input (make: INPUT=...)"]),
        (file_instead_of_folder, ["photo.jpg is a file", "; pass a folder of photos as --input"]),
        (
            empty_folder,
            ["no photos in ", "empty: expected files ending in .avif", ".jpg", "found 0 other files; pass"],
        ),
        (
            folder_without_photos,
            ["no photos in ", ": expected files ending in .avif", ".png", "found 3 other files; pass"],
        ),
        (only_a_pipe, ["no photos in ", "found 1 other file; pass"]),
    ],
)
def test_input_without_photos_is_an_error(tmp_path: Path, make: Callable[[Path], Path], phrases: list[str]) -> None:
    result = run("-i", make(tmp_path), "-o", tmp_path / "out")
    assert_error(result, *phrases)
    assert not list((tmp_path / "out").glob("scale_*"))


def test_emptied_input_keeps_the_shards(tmp_path: Path) -> None:
    """An unmounted disk looks like an empty folder."""
    folder_of(tmp_path / "in", good=2, bad=0)
    generate_in(tmp_path)
    for path in sorted((tmp_path / "in").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert_error(run_in(tmp_path), "no photos in ")
    assert len(read_shards(tmp_path / "out").samples) == 2
    assert_verified(tmp_path / "out")


@pytest.mark.parametrize(("output", "reason"), [("file", ": it is a file"), ("file/inside", ": Not a directory")])
def test_output_that_is_a_file_is_an_error(tmp_path: Path, output: str, reason: str) -> None:
    folder_of(tmp_path / "in", good=2, bad=0)
    write(tmp_path, "file", b"mine")
    result = run("-i", tmp_path / "in", "-o", tmp_path / output)
    assert_error(result, f"cannot write to {tmp_path / output}{reason}; pass another folder")
    assert (tmp_path / "file").read_bytes() == b"mine"


# ---- invalid options

SCALES = "expected integers from 2 to 8, e.g. --scales 2 3 4"
METHODS = ("'--method'", "'nearest', 'linear', 'cubic', 'area', 'lanczos', 'matlab'")
SHARE = "expected a fraction above 0 and at most 1"
LIMIT = "expected a number of photos such as 50, or a percentage such as 2%"
FRACTION = "expected a fraction from 0 to below 1"
NUM_BYTES = "expected a number of bytes such as 256MB, 1GiB or 1000000"
INVALID_OPTIONS: dict[tuple[str, ...], tuple[str, ...]] = {
    **{("-s", value): (f"'{value}'", SCALES) for value in ("2.5", "x", "9", "1", "0", "-4", "", "2,x")},
    ("-s", "2", "3", "9"): ("'9'", SCALES),
    ("--scales=2,16",): ("'2,16'", SCALES),
    ("-s",): ("'-s' requires an argument",),
    ("--method", "blur"): ("'blur'", *METHODS),
    ("--method", ""): METHODS,
    ("--fit", "crop"): ("'crop'", "'--fit'", "'cover', 'tile', 'stretch'"),
    ("--codec", "jpg"): ("'jpg'", "'--codec'", "'npy', 'png', 'webp'"),
    **{("--sample", value): (f"--sample {float(value)}", SHARE) for value in ("0", "1.5", "-1", "nan")},
    ("--sample", "all"): ("'--sample'", "'all' is not a valid float"),
    **{("--size", value): (f"--size {value}: expected 16 to 8192 px",) for value in ("5", "0", "100000")},
    ("--size", "64.5"): ("'--size'", "'64.5' is not a valid integer"),
    ("--tile-step", "32"): ("--tile-step requires --fit tile",),
    ("--fit", "tile", "--tile-step", "0"): ("--tile-step 0: expected 1 to 64 px (at most --size)",),
    ("--fit", "tile", "--tile-step", "65"): ("--tile-step 65: expected 1 to 64 px (at most --size)",),
    ("--shard-bytes", "0"): ("--shard-bytes 0: expected 1 or more bytes, e.g. 256MB",),
    **{("--shard-bytes", value): (f"'{value}'", NUM_BYTES) for value in ("many", "10XB", "-5MB")},
    **{("--max-failures", value): (f"'{value}'", LIMIT) for value in ("x", "-1", "1.5", "%")},
    **{("--val-fraction", value): (f"--val-fraction {float(value)}", FRACTION) for value in ("1", "-0.1", "nan")},
    ("--seed", "x"): ("'--seed'", "'x' is not a valid integer"),
    ("--workers", "-1"): ("'--workers'", "-1 is not in the range x>=0"),
    ("--wrokers", "2"): ("No such option '--wrokers'", "'--workers'"),
    ("photos",): ("unexpected extra argument (photos)",),
}


@pytest.mark.parametrize("options", INVALID_OPTIONS, ids=" ".join)
def test_invalid_option_is_an_error(options: tuple[str, ...], tmp_path: Path) -> None:
    folder_of(tmp_path / "in", good=1, bad=0)
    assert_error(run_in(tmp_path, *options), *INVALID_OPTIONS[options])
    assert not (tmp_path / "out").exists()


def test_too_long_input_name_is_an_error(tmp_path: Path) -> None:
    for name in ("o" * 300, "/".join(["o" * 200] * 30)):
        result = run_cli("generate", "-i", tmp_path / name, "-o", tmp_path / "out", "-s", 4, "--auto")
        assert result.returncode == 2 and f"cannot list {tmp_path / name}: File name too long" in result.stderr
