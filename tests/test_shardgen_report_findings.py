"""`shardgen report`: the verdict, folded lists, the command to copy, and photos that are in train and val."""

import base64
import io
import shlex
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from browser import PHONE, WIDE, accessibility_violations, opened
from helpers import generate, make_photo, make_photos, run_cli
from pairs import hr_image, pack, save, shrunk
from PIL import Image
from playwright.sync_api import Browser, Page

from shardgen.report.overlaps import Features, find_features, overlaps
from srshards.imaging.luma import luma_full_range
from srshards.page.pictures import lossless_uri, photo_uri


def report(shards: Path, output: Path) -> str:
    result = run_cli("report", shards, "-o", output)
    assert result.returncode == 0, result.stderr
    return output.read_text("utf-8")


def command_of(page: str) -> list[str]:
    """Return the words of the page's only command, without `python -m shardgen`."""
    text = page.split('<pre class="command"><code>')[1].split("</code>")[0]
    words = shlex.split(text.replace("&#39;", "'"))
    assert words[:3] == ["python", "-m", "shardgen"]
    return words[3:]


# ---- the verdict


def remarks(page: Page) -> list[str]:
    """Return the parts of the verdict, after checking that each leads to an existing part of the page."""
    links = page.locator(".verdict a")
    for target in links.evaluate_all("links => links.map(link => link.getAttribute('href'))"):
        assert page.locator(target).count() == 1, target
    return links.all_inner_texts()


def test_verdict_names_what_is_remarkable(browser: Browser, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(8):
        Image.fromarray(_scene(seed)).save(photos / f"{seed}.png")
    Image.new("RGB", (90, 90), (2, 2, 2)).save(photos / "black.png")
    Image.fromarray(make_photo(40, 60, seed=5)).save(photos / "small.png")
    shutil.copy(photos / "0.png", photos / "again.png")
    (photos / "broken.jpg").write_bytes(b"")
    generate(photos, tmp_path / "shards", "--val-fraction", 0, "--method", "area")
    report(tmp_path / "shards", tmp_path / "r.html")
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        assert page.locator("#verdict").inner_text() == "Look here"
        assert remarks(page) == [
            "1 photo failed",
            "1 pair of near-duplicates",
            "1 enlarged photo",
            "1 photo at least 75% flat",
            "1 photo very soft",
            "1 photo very dark",
        ]
        (small,) = page.locator("#enlarged-list .photo").all_inner_texts()
        assert "small.png" in small and "enlarged 1.60\N{MULTIPLICATION SIGN}" in small


def test_verdict_says_when_nothing_is_remarkable(browser: Browser, tmp_path: Path) -> None:
    generate(make_photos(tmp_path / "photos", 6), tmp_path / "shards", "--method", "area")
    report(tmp_path / "shards", tmp_path / "r.html")
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        assert page.locator("#verdict").inner_text() == "Nothing remarkable" and remarks(page) == []
        assert "no validation photos in train" in page.locator(".verdict p").inner_text()
        assert accessibility_violations(page) == ""


def test_verdict_names_few_validation_photos(browser: Browser, many: Path, tmp_path: Path) -> None:
    generate(make_photos(tmp_path / "photos", 40), tmp_path / "shards", "--val-fraction", 0.3)
    report(tmp_path / "shards", tmp_path / "r.html")
    for file, expected in ((many, ["only 1 validation photo"]), (tmp_path / "r.html", [])):
        with opened(browser, file, **WIDE) as page:
            assert [text for text in remarks(page) if text.startswith("only")] == expected


def test_terms_are_explained_before_they_are_used(browser: Browser, many: Path) -> None:
    with opened(browser, many, **PHONE) as page:
        terms, text = page.locator(".terms").inner_text(), page.locator("body").inner_text()
        for term in ("sample", "HR", "LR", "up", "PSNR of up", "train", "val"):
            assert term in page.locator(".terms b").all_inner_texts(), term
        assert text.index(terms) < min(text.index(use) for use in ("To exclude", "train samples", "val samples"))
        assert text.count("A hash describes the coarse structure") == 1
        assert "its Nyquist limit, the finest detail that LR can hold" in text


# ---- folded lists


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with lists of 16 photos."""
    folder = tmp_path_factory.mktemp("many")
    generate(make_photos(folder / "photos", 40), folder / "shards")
    report(folder / "shards", folder / "r.html")
    return folder / "r.html"


@pytest.mark.parametrize("device", [WIDE, PHONE], ids=["wide", "phone"])
def test_lists_show_one_row_until_their_button_is_pressed(browser: Browser, many: Path, device: dict) -> None:
    with opened(browser, many, **device) as page:
        button = page.get_by_role("button", name="Show all 16 of Flattest")
        photos = page.locator("#flattest-list .photo")
        visible = page.locator("#flattest-list .photo:visible")
        rows = "all => new Set(all.map(one => one.offsetTop)).size"
        assert photos.count() == 16 and 1 < visible.count() < 16 and visible.evaluate_all(rows) == 1
        assert button.get_attribute("aria-expanded") == "false"
        assert button.get_attribute("aria-controls") == "flattest-list"
        button.focus()
        page.keyboard.press("Enter")
        button = page.get_by_role("button", name="Show one row of Flattest")
        assert button.get_attribute("aria-expanded") == "true" and visible.count() == 16
        photos.last.locator("input").check()
        page.keyboard.press("Tab")
        assert accessibility_violations(page) == ""
        button.click()
        page.get_by_role("button", name="Show all 16 of Flattest (1 ticked)").wait_for()
        assert not photos.last.is_visible(), "ticked, and folded again"
        assert page.locator(".basket output").inner_text() == "1 photo to exclude"


@pytest.mark.parametrize("device", [WIDE, PHONE], ids=["wide", "phone"])
def test_bar_of_excluded_photos_is_shown_while_some_are_ticked(browser: Browser, many: Path, device: dict) -> None:
    with opened(browser, many, **device) as page:
        bar, count = page.locator(".basket"), page.locator(".basket output[aria-live=polite]")
        at_bottom = "() => document.elementFromPoint(innerWidth / 2, innerHeight - 3)?.closest('.basket') !== null"
        box = page.locator("#flattest-list .photo:visible input").first

        def is_seen() -> bool:
            return page.evaluate(at_bottom) and bar.bounding_box()["height"] > 20

        assert not page.evaluate(at_bottom) and bar.bounding_box()["height"] <= 1
        assert page.get_by_role("region", name="Photos to exclude").count() == 1, "announces its changes"
        assert accessibility_violations(page) == ""
        box.check()
        assert is_seen() and count.inner_text() == "1 photo to exclude"
        page.get_by_role("button", name="Clear").click()
        assert not is_seen() and count.inner_text() == "0 photos to exclude"


def test_each_photo_is_shown_once_with_links_from_the_other_lists(browser: Browser, many: Path) -> None:
    with opened(browser, many, **WIDE) as page:
        numbers = page.locator(".photo input").evaluate_all("all => all.map(box => box.dataset.photo)")
        assert len(numbers) == len(set(numbers)) > 16
        softest = page.locator("section[aria-labelledby=softest]")
        shown, above = softest.locator(".photo").count(), softest.inner_text().split("Shown above: ")[1].split()[0]
        assert shown + int(above) == 16 and softest.locator('a[href="#flattest"]').count() == 1


# ---- several scales


def test_scales_share_what_is_the_same(browser: Browser, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 4)
    generate(photos, tmp_path / "shards", "-s", 2)
    generate(photos, tmp_path / "shards", "-s", 4, "--codec", "png")
    page_text = report(tmp_path / "shards", tmp_path / "r.html")
    commands = page_text.split('<pre class="command"><code>')[1].split("</code>")[0].splitlines()
    assert [(" -s 2 " in one, " -s 4 " in one, "--codec png" in one) for one in commands] == [
        (True, False, False),
        (False, True, True),
    ]
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        page.get_by_text("Settings", exact=True).click()
        assert "fit" in page.locator("section[aria-labelledby=photos]").inner_text()
        for scale, codec in ((2, "npy"), (4, "png")):
            text = page.locator(f"section[aria-labelledby=scale-{scale}]").inner_text()
            assert f"codec\n{codec}" in text and "hr size" not in text


# ---- the command


@pytest.mark.parametrize(
    "options",
    [
        ("-s", 4),
        ("-s", 2, 3, "--size", 50, "--fit", "stretch", "--method", "matlab", "--codec", "webp", "--seed", 3),
        ("-s", 4, "--fit", "tile", "--tile-step", 32, "--icc", "ignore", "--shard-bytes", "100KB", "--no-up"),
        ("-s", 4, "--degradation", "realesrgan", "--variants", 2, "--sharpen-hr", "--val-fraction", 0.3),
        ("-s", 4, "--sample", 0.5, "--val-fraction", 0),
    ],
)
def test_command_makes_the_same_shards(options: tuple, tmp_path: Path) -> None:
    photos, shards = make_photos(tmp_path / "photos", 6), tmp_path / "the shards"
    generate(photos, shards, *options)
    words = command_of(report(shards, tmp_path / "r.html"))
    assert words[:5] == ["generate", "-i", "PHOTOS", "-o", str(shards)] and words[-2:] == ["--exclude", "exclude.txt"]
    words[2] = str(photos)
    result = run_cli(*words[:-2], "--auto")
    assert result.returncode == 0 and "up to date." in result.stdout, result.stdout + result.stderr
    (tmp_path / "exclude.txt").write_text("class0/img0.jpg\n")
    result = run_cli(*words[:-1], tmp_path / "exclude.txt", "--auto", "--workers", 0)
    assert result.returncode == 0 and "Exclude 1 photo" in result.stdout, result.stdout + result.stderr


def test_command_names_what_shards_do_not_record(tmp_path: Path) -> None:
    photos, recipe = make_photos(tmp_path / "photos", 4), tmp_path / "mine.yaml"
    recipe.write_text("- blur: {sigma: [0.2, 3]}\n")
    val = make_photos(tmp_path / "val", 2)
    generate(photos, tmp_path / "shards", "--val", val, "--degradation", recipe)
    page = report(tmp_path / "shards", tmp_path / "r.html")
    words = " ".join(command_of(page))
    assert "--val VAL --degradation mine.yaml" in words and "--val-fraction" not in words
    assert "Replace PHOTOS by your folder, VAL by your validation folder, mine.yaml by your recipe." in page


def test_command_keeps_what_was_excluded_before(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 6)
    (tmp_path / "first.txt").write_text("class0/img0.jpg\n")
    generate(photos, tmp_path / "shards")
    assert "The last run left out" not in report(tmp_path / "shards", tmp_path / "r.html")
    generate(photos, tmp_path / "shards", "--exclude", tmp_path / "first.txt")
    page = report(tmp_path / "shards", tmp_path / "r.html")
    assert "The last run left out 1 photo by --exclude: add its list to exclude.txt to keep them out." in page


@pytest.mark.parametrize(("inside", "folder"), [("scale_4x", "."), ("scale_4x/sub", ".."), ("", "scale_4x")])
def test_command_names_the_folder_above_the_scale(
    inside: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = tmp_path / "shards"
    generate(make_photos(tmp_path / "photos", 2), shards)
    (shards / "scale_4x/sub").mkdir()
    monkeypatch.chdir(shards / inside)
    page = report(Path(folder), tmp_path / "r.html")
    words = command_of(page)
    assert Path(words[words.index("-o") + 1]).resolve() == shards
    assert "The last run of <code>generate</code>" in page


def test_command_of_pairs_packs_the_same_shards(tmp_path: Path) -> None:
    for number in range(4):
        hr = hr_image(96, 96, number)
        save(tmp_path / "HR" / f"{number}.png", hr)
        save(tmp_path / "X2" / f"{number}.png", shrunk(hr, 2))
    pack(tmp_path, tmp_path / "shards")
    page = report(tmp_path / "shards", tmp_path / "r.html")
    words = command_of(page)
    assert words[:5] == ["pack", "--hr", "HR", "--lr", "LR_X2"] and "add those that you passed" in page
    words[2], words[4] = str(tmp_path / "HR"), str(tmp_path / "X2")
    result = run_cli(*words[:-2], "--auto")
    assert result.returncode == 0 and "up to date." in result.stdout, result.stdout + result.stderr


# ---- train and val


def _scene(seed: int) -> np.ndarray:
    """A picture with corners of many sizes: 300 random rectangles."""
    draw = np.random.default_rng(seed)
    picture = np.full((400, 400, 3), 128, np.uint8)
    for _ in range(300):
        (x, y), (width, height) = draw.integers(0, 390, 2), draw.integers(5, 60, 2)
        picture[y : y + height, x : x + width] = draw.integers(0, 256, 3)
    return picture


def test_crops_of_one_picture_overlap_and_different_pictures_do_not() -> None:
    def features(pixels: np.ndarray) -> Features:
        return find_features(luma_full_range(np.ascontiguousarray(pixels)))

    left = [features(_scene(seed)[:300, :300]) for seed in range(6)]
    crops = [np.asarray(Image.fromarray(_scene(seed)[80:, 80:]).resize((256, 256))) for seed in range(6)]
    found = overlaps(left, [features(crop) for crop in crops])
    assert [(i, j) for i, j, _ in found] == [(seed, seed) for seed in range(6)]
    blank = features(np.full((64, 64, 3), 9, np.uint8))
    assert overlaps(left, [blank]) == overlaps([blank], left) == overlaps([], left) == overlaps(left, []) == []


def test_descriptors_that_are_all_alike_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of documents and stars: the pairs of them all would not fit into the memory."""
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (64, 32), dtype=np.uint8) for _ in range(30)]
    positions = draw.uniform(0, 256, (128, 2)).astype(np.float32)
    left, right = (
        [Features(positions, np.concatenate([one, np.full((64, 32), 7, np.uint8)])) for one in side]
        for side in (pictures[:2], pictures)
    )
    tracemalloc.start()
    found = overlaps(left, right)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(i, j) for i, j, _ in found] == [(0, 0), (1, 1)]
    assert peak_bytes < 5_000_000, "the pairs of the equal descriptors take 20 times as much"
    monkeypatch.setattr("shardgen.report.overlaps._BLOCK_PAIRS", 1)
    assert overlaps(left, right) == found


def test_validation_photos_that_are_in_train_are_reported(browser: Browser, tmp_path: Path) -> None:
    for folder in ("photos", "val"):
        (tmp_path / folder).mkdir()
    for seed in range(5):
        Image.fromarray(_scene(seed)[:300, :300]).save(tmp_path / "photos" / f"{seed}.png")
    Image.fromarray(_scene(0)[80:, 80:]).save(tmp_path / "val" / "part.png")
    Image.fromarray(_scene(1)[:300, :300]).save(tmp_path / "val" / "same.png")
    Image.fromarray(_scene(9)[:300, :300]).save(tmp_path / "val" / "other.png")
    generate(tmp_path / "photos", tmp_path / "shards", "-s", 2, 4, "--val", tmp_path / "val", "--size", 256)
    report(tmp_path / "shards", tmp_path / "r.html")
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        assert remarks(page)[0] == "2 validation photos are also training photos, at least in part"
        same, part = page.locator("#across-list fieldset").all()
        assert same.locator("legend").inner_text() == "1 of val, 1 of train, equal hashes"
        assert part.locator("legend").inner_text() == "1 of val, 1 of train, overlapping"
        text = page.locator("main").inner_text()
        assert text.count("A hash describes") == 1 and text.index("A hash describes") < text.index("equal hashes")
        names = part.locator(".photo").all_inner_texts()
        assert "part.png" in names[0] and "val, " in names[0] and "0.png" in names[1] and "train, " in names[1]
        part.get_by_role("button", name="Tick train").click()
        assert page.locator(".basket textarea").input_value().splitlines()[1:] == ["0.png"]
        assert page.locator("section[aria-labelledby=alike] .photo").count() == 0


def test_validation_photos_of_a_fraction_can_be_excluded(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(10):
        Image.fromarray(_scene(0)[8 * number :, :300][:300]).save(tmp_path / "photos" / f"{number}.png")
    generate(tmp_path / "photos", tmp_path / "shards", "--val-fraction", 0.3, "--size", 256)
    report(tmp_path / "shards", tmp_path / "r.html")
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        group = page.locator("#across-list fieldset")
        val = int(group.locator("legend").inner_text().split()[0])
        group.get_by_role("button", name="Tick val").click()
        assert val and len(page.locator(".basket textarea").input_value().splitlines()) == 1 + val


# ---- sizes


def test_photos_of_the_gallery_look_the_same_in_fewer_bytes() -> None:
    photo = make_photo(256, 256, seed=3)
    uri = photo_uri(photo)
    stored = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
    error = np.mean((stored.astype(float) - photo) ** 2)
    assert 10 * np.log10(255**2 / error) > 32 and len(uri) < len(lossless_uri(photo)) / 2
