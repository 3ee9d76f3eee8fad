"""`pack` on pairs that do not fit: each is a failure by name, and nothing is resized."""

from pathlib import Path

import numpy as np
import pytest
from helpers import run_cli
from icc_profiles import display_p3, srgb
from pairs import Image8, hr_image, make_pairs, manifest, pack, samples, save, shrunk
from PIL import Image


def failure(folder: Path, output: Path, *args: object) -> str:
    """Pack pairs of which `img0` is bad, and return its reason; the others must be packed."""
    result = pack(folder, output, *args)
    (found,) = manifest(output)["failures"]
    assert found["path"] == "class0/img0.png" and f"class0/img0.png: {found['reason']}" in result.stderr
    assert "1 of 4 pairs failed" in result.stderr
    used = {sample["json"]["source"] for sample in samples(output / "scale_2x").values()}
    assert used == {"class1/img1.png", "class0/img2.png", "class1/img3.png"}
    return str(found["reason"])


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Four pairs at 2x, HR of 96 x 130 px."""
    return make_pairs(tmp_path / "pairs", 4, (2,), (96, 130))


HR, LR = Path("HR/class0/img0.png"), Path("X2/class0/img0.png")
HR_PIXELS = hr_image(96, 130, 0)
LR_PIXELS = shrunk(HR_PIXELS, 2)

SIZES: dict[str, tuple[Image8, str]] = {
    "one pixel too wide": (
        np.pad(LR_PIXELS, ((0, 0), (0, 1), (0, 0))),
        "HR is 130 x 96 px, but LR 66 x 48 px: expected LR of 65 x 48 px at 2x; pairs are not resized, so make LR "
        "again",
    ),
    "one pixel too low": (
        LR_PIXELS[:-1],
        "HR is 130 x 96 px, but LR 65 x 47 px: expected LR of 65 x 48 px at 2x; pairs are not resized, so make LR "
        "again",
    ),
    "of a resized copy": (
        LR_PIXELS[:32, :32],
        "HR is 130 x 96 px, but LR 32 x 32 px, not 2x: LR seems to be made from a resized or cropped copy of HR; make "
        "both anew from the photos with `generate`",
    ),
    "rotated by 90 degrees": (
        np.rot90(LR_PIXELS),
        "HR is 130 x 96 px, but LR 48 x 65 px: one is rotated by 90 degrees against the other, e.g. by an EXIF "
        "orientation tag that only one has; rotate one of them, or remove the tag",
    ),
    "larger than HR": (
        np.pad(LR_PIXELS, ((0, 60), (0, 80), (0, 0))),
        "HR is 130 x 96 px, but LR 145 x 108 px: LR is larger than HR; swap --hr and --lr if they are reversed",
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_other_ratios_are_failures_with_both_sizes(case: str, four: Path, tmp_path: Path) -> None:
    pixels, reason = SIZES[case]
    save(four / LR, pixels)
    assert failure(four, tmp_path / "out") == reason


def test_hr_of_less_than_one_lr_pixel(four: Path, tmp_path: Path) -> None:
    save(four / HR, HR_PIXELS[:1])
    save(four / LR, LR_PIXELS[:1])
    expected = "HR is 130 x 1 px, but LR 65 x 1 px: HR is smaller than one LR pixel at 2x; remove the pair"
    assert failure(four, tmp_path / "out") == expected


def test_hr_larger_by_less_than_one_lr_pixel_is_cropped(four: Path, tmp_path: Path) -> None:
    save(four / HR, np.pad(HR_PIXELS, ((0, 1), (0, 1), (0, 0)), "edge"))
    result = pack(four, tmp_path / "out")
    assert "4 pairs checked, 1 with HR cropped to a multiple of the scale" in result.stdout
    save(four / HR, np.pad(HR_PIXELS, ((0, 2), (0, 0), (0, 0)), "edge"))
    assert "expected LR of 65 x 49 px at 2x" in failure(four, tmp_path / "more")


CONTENTS: dict[str, tuple[Image8, str]] = {
    "another image": (shrunk(hr_image(96, 130, 9), 2), "LR shows another image than HR"),
    "displaced": (np.roll(LR_PIXELS, 2, axis=1), "LR is displaced against HR"),
    "brighter": (np.clip(LR_PIXELS.astype(int) + 30, 0, 255).astype(np.uint8), "LR is brighter than HR"),
    "grey": (LR_PIXELS.mean(axis=2).astype(np.uint8), "the colours of HR"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_pairs_that_do_not_match_are_failures_unless_accepted(case: str, four: Path, tmp_path: Path) -> None:
    pixels, reason = CONTENTS[case]
    save(four / LR, pixels)
    assert reason in failure(four, tmp_path / "out")
    result = pack(four, tmp_path / "accepted", "--accept-misaligned")
    assert manifest(tmp_path / "accepted")["failures"] == []
    assert "4 pairs checked, 1 accepted in spite of the check" in result.stdout
    assert manifest(tmp_path / "accepted")["pairs"]["worst"]["path"] == "class0/img0.png"


@pytest.mark.parametrize("damaged", [HR, LR])
def test_one_damaged_image_is_a_failure_that_names_it(damaged: Path, four: Path, tmp_path: Path) -> None:
    content = (four / damaged).read_bytes()
    (four / damaged).write_bytes(content[: len(content) // 2])
    reason = failure(four, tmp_path / "out")
    assert reason == "truncated PNG" if damaged is HR else reason == "LR class0/img0.png: truncated PNG"


def test_bad_lr_at_one_scale_does_not_affect_the_other(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path / "pairs", 3)
    (folder / "X3" / "class1" / "img1.png").write_bytes(b"no image")
    result = pack(folder, tmp_path / "out", scales=(2, 3))
    assert "1 of 3 pairs failed" in result.stderr and manifest(tmp_path / "out", 2)["failures"] == []
    assert [one["path"] for one in manifest(tmp_path / "out", 3)["failures"]] == ["class1/img1.png"]


def test_given_up_of_another_size_is_a_failure(four: Path, tmp_path: Path) -> None:
    for path in (four / "X2").rglob("*.png"):
        up = np.asarray(Image.open(path)).repeat(2, axis=0).repeat(2, axis=1)
        save(tmp_path / "up" / path.relative_to(four / "X2"), up if path.name != "img0.png" else up[1:])
    reason = failure(four, tmp_path / "out", "--up", tmp_path / "up")
    assert reason == (
        "upsampled class0/img0.png is 130 x 95 px: expected 130 x 96 px, the size of LR times the scale; omit --up to "
        "compute it"
    )


def test_pairs_smaller_than_a_tile_are_skipped(four: Path, tmp_path: Path) -> None:
    save(four / HR, HR_PIXELS[:40])
    save(four / LR, LR_PIXELS[:20])
    result = pack(four, tmp_path / "out")
    assert manifest(tmp_path / "out")["skipped"] == [
        {"path": "class0/img0.png", "reason": "smaller than a tile of 48 px"}
    ]
    assert "1 skipped (smaller than a tile)" in result.stdout


def test_grey_sixteen_bit_and_transparent_images_are_read_as_photos(four: Path, tmp_path: Path) -> None:
    """Bit depths of HR and LR may differ: both become 8 bits. Transparency is composited over black on both sides."""
    grey = np.asarray(Image.fromarray(HR_PIXELS).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(four / HR)
    Image.fromarray(shrunk(grey[..., None].repeat(3, axis=2), 2)[..., 0]).save(four / LR)
    hr = np.dstack([hr_image(96, 130, 2), np.full((96, 130), 255, np.uint8)])
    hr[:48, :, 3] = 128
    Image.fromarray(hr).save(four / "HR/class0/img2.png")
    over_black = np.floor(hr[..., :3] * (hr[..., 3:] / 255) + 0.5).astype(np.uint8)
    save(four / "X2/class0/img2.png", shrunk(over_black, 2))
    pack(four, tmp_path / "out")
    assert manifest(tmp_path / "out")["failures"] == []
    by_source = {sample["json"]["source"]: sample for sample in samples(tmp_path / "out" / "scale_2x").values()}
    assert (by_source["class0/img0.png"]["hr"] == grey[-48:, -48:, None]).all()
    assert (by_source["class0/img2.png"]["hr"] == over_black[-48:, -48:]).all()


def test_colour_profile_of_one_image_only(four: Path, tmp_path: Path) -> None:
    """Whether LR has the colour values of HR or sRGB cannot be known. Profiles of sRGB change nothing."""
    Image.fromarray(HR_PIXELS).save(four / HR, icc_profile=display_p3())
    Image.fromarray(LR_PIXELS).save(four / LR)
    assert failure(four, tmp_path / "one") == (
        "HR has the colour profile Display P3, but LR has none; pass --icc ignore if both have the same colour values, "
        "or convert both to sRGB"
    )
    pack(four, tmp_path / "ignored", "--icc", "ignore")
    assert manifest(tmp_path / "ignored")["failures"] == []
    Image.fromarray(LR_PIXELS).save(four / LR, icc_profile=display_p3())
    result = pack(four, tmp_path / "both")
    assert (
        manifest(tmp_path / "both")["failures"] == [] and "1 pair converted to sRGB from Display P3." in result.stdout
    )
    Image.fromarray(HR_PIXELS).save(four / HR, icc_profile=srgb())
    Image.fromarray(LR_PIXELS).save(four / LR)
    pack(four, tmp_path / "srgb")
    assert manifest(tmp_path / "srgb")["failures"] == []


def test_lr_of_resized_photos_names_generate(four: Path, tmp_path: Path) -> None:
    """As the older scripts made it: from each photo, resized to a square."""
    for path in (four / "X2").rglob("*.png"):
        save(path, np.asarray(Image.open(path))[:32, :32])
    result = pack(four, tmp_path / "out", expect=2)
    assert "if LR was made from resized copies of the photos, make both anew with `generate`" in result.stderr


def test_too_many_failures_are_an_error(four: Path, tmp_path: Path) -> None:
    save(four / LR, LR_PIXELS[:, :32])
    result = pack(four, tmp_path / "out", "--max-failures", 0, expect=1)
    assert "Fix or remove these pairs, or raise --max-failures." in result.stderr


def test_all_pairs_failed(four: Path, tmp_path: Path) -> None:
    for path in (four / "X2").rglob("*.png"):
        save(path, 255 - np.asarray(Image.open(path)))
    result = pack(four, tmp_path / "out", expect=1)
    assert "no pair produced a sample; the manifest lists the reasons" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--tile-step", 33), "--tile-step 33: expected a multiple of the scale 2"),
        (("--size", 8), "--size 8: expected 16 to 8192 px"),
        (("--size", 0), "--size 0: expected 16 to 8192 px"),
        (("--pattern", ""), "--pattern '' has 0 times {name}"),
        (("--val", "none"), "no such folder: none; pass the folder of HR images as --val"),
        (("--val", "none", "--val-lr", "lr"), "no such folder: none; pass the folder of HR images as --val"),
        (("--no-up", "--up", "up"), "--no-up stores no upsampled images, so --up and --val-up have no effect"),
        (("--val-lr", "lr"), "--val-lr and --val-up require --val"),
        (("--val", "HR", "--val-fraction", 0.1), "--val-fraction excludes --val"),
    ],
)
def test_options_that_do_not_fit(args: tuple[object, ...], message: str, four: Path, tmp_path: Path) -> None:
    if "--val-fraction" in args:
        val = make_pairs(tmp_path / "val", 2, (2,))
        args = ("--val", (val / "X2").rename(val / "LR").parent, *args[2:])
    result = pack(four, tmp_path / "out", *args, expect=2)
    assert message in result.stderr and not (tmp_path / "out").exists()


def test_default_size(tmp_path: Path) -> None:
    def size(folder: Path) -> str:
        result = run_cli("pack", "--hr", folder / "HR", "--lr", folder / "X2", "-o", tmp_path / "out", "--dry-run")
        return next(line.split(",")[0] for line in result.stdout.splitlines() if line.startswith("scale_2x"))

    assert size(make_pairs(tmp_path / "squares", 3, (2,), (90, 90))) == "scale_2x  HR 90 px"
    assert size(make_pairs(tmp_path / "small", 3, (2,), (140, 300))) == "scale_2x  HR 140 px"
    assert size(make_pairs(tmp_path / "large", 2, (2,), (600, 530))) == "scale_2x  HR 512 px"
    assert size(make_pairs(tmp_path / "tiny", 3, (2,), (60, 90))) == "scale_2x  HR 128 px"
