"""`shardgen report` on packed pairs: the section "Pairs" in a real browser."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import DEVICES, WIDE, accessibility_violations, opened
from helpers import generate, make_photos, run_cli
from pairs import Image8, hr_image, pack, save, shrunk
from playwright.sync_api import Browser, Page

from shardgen.report.pairs import difference
from srshards.page.render import MAX_PAGE_BYTES

DISPLACED, DARK, TWIN = "class1/displaced.png", "class1/dark.png", "class0/twin.png"
PAIRS = "section[aria-labelledby=scale-2] .pair"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 pairs at 2x, cut into 4 tiles each: one displaced, one darker, and one that is there twice."""
    folder, output = tmp_path_factory.mktemp("pairs"), tmp_path_factory.mktemp("packed")
    images = {f"class{number % 2}/img{number}.png": hr_image(96, 96, number) for number in range(11)}
    images |= {DISPLACED: hr_image(96, 96, 20), DARK: hr_image(96, 96, 21), TWIN: hr_image(96, 96, 1)}
    for name, hr in images.items():
        lr = shrunk(hr, 2)
        if name == DISPLACED:
            lr = np.roll(lr, 1, axis=1)
        if name == DARK:
            lr = (lr * 0.8).astype(np.uint8)
        save(folder / "HR" / name, hr)
        save(folder / "X2" / name, lr)
    result = pack(folder, output, "--accept-misaligned")
    assert "14 pairs checked, 2 accepted in spite of the check" in result.stdout
    return output


@pytest.fixture(scope="module")
def page_file(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    result = run_cli("report", packed, "-o", path)
    assert result.returncode == 0, result.stderr
    assert path.stat().st_size < MAX_PAGE_BYTES
    return path


def captions(page: Page) -> list[str]:
    return [text.replace("\n", " ") for text in page.locator(f"{PAIRS} figcaption").all_inner_texts()]


def test_worst_pairs_come_first_with_figure_and_bound(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **WIDE) as page:
        first, second, *others = captions(page)
        assert re.match(rf"{DISPLACED} LR is displaced against HR \(right, down\): (0.9|1.0)", first)
        assert "LR px, expected at most 0.38" in first
        assert second.startswith(f"{DARK} LR is darker than HR: -") and "expected at most" in second
        assert page.locator(".pair.beyond").count() == 2 and len(others) == 10, "12 pairs of 14, not of 56 tiles"
        text = page.locator("section[aria-labelledby=scale-2]").inner_text()
        assert "14 pairs are measured here" in text and "2 pairs beyond a bound: accepted" in text
        page.get_by_role("button", name=f"Magnify {DISPLACED}").first.click()
        facts = page.locator("dialog dl.facts").inner_text()
        assert "displacement" in facts and "LR px, ±" in facts and "red, green, blue" in facts


def test_plots_show_each_pair_once(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **WIDE) as page:
        for title in ("Displacement", "Difference of brightness", "Colour cast", "Correlation"):
            plot = page.locator(".plot").filter(has=page.get_by_role("heading", name=title, exact=True))
            assert " over 14 pairs" in plot.inner_text()
            plot.locator("summary").click()
            assert sum(map(int, plot.locator("tbody td").all_inner_texts())) == 14


def test_worst_pairs_can_be_excluded(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **WIDE) as page:
        page.locator(f"{PAIRS} input[data-photo]").first.check()
        lines = page.locator(".basket textarea").input_value().splitlines()
        assert lines[1:] == [DISPLACED]
        assert "python -m shardgen pack" in page.locator("pre.command").inner_text()


def test_a_pair_that_is_there_twice_is_a_near_duplicate(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **WIDE) as page:
        group = page.get_by_role("group").filter(has_text="2 photos, equal hashes")
        assert [name.split("\n")[1] for name in sorted(group.locator(".photo").all_inner_texts())] == [
            TWIN,
            "class1/img1.png",
        ]


def test_only_training_pairs_can_be_excluded(browser: Browser, tmp_path: Path) -> None:
    """The validation folder has the path of a training pair, and an image that is a training pair by another name."""
    for folder, names in (("train", {"a": 1, "b": 2, "c": 3}), ("val", {"a": 4, "twin": 3})):
        for name, seed in names.items():
            hr = hr_image(96, 96, seed)
            save(tmp_path / folder / "HR" / f"{name}.png", hr)
            save(tmp_path / folder / "X2" / f"{name}.png", shrunk(hr, 2))
    val = ("--val", tmp_path / "val" / "HR", "--val-lr", tmp_path / "val" / "X2")
    pack(tmp_path / "train", tmp_path / "out", *val)
    assert run_cli("report", tmp_path / "out", "-o", tmp_path / "r.html").returncode == 0
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        assert "--exclude does not apply to the photos of --val" in page.locator("main").inner_text()
        assert "5 pairs are measured here" in page.locator("section[aria-labelledby=scale-2]").inner_text()
        assert page.locator(".pair").count() == 5 and page.get_by_text("Pair of --val").count() == 2
        group = page.get_by_role("group").filter(has_text="1 of val, 1 of train, equal hashes")
        twin, training = group.locator(".photo").all()
        assert "(--val)" in twin.inner_text() and twin.locator("input").count() == 0
        assert "c.png" in training.inner_text()
        group.get_by_role("button").click()
        assert page.locator(".basket textarea").input_value().splitlines()[1:] == ["c.png"]
        for box in page.locator("input[data-photo]").all():
            box.check()
        head, *lines = page.locator(".basket textarea").input_value().splitlines()
        assert "python -m shardgen pack" in head and lines == ["a.png", "b.png", "c.png"]
        assert accessibility_violations(page) == ""


@DEVICES
def test_section_has_no_accessibility_violations(browser: Browser, page_file: Path, device: dict, scheme: str) -> None:
    with opened(browser, page_file, color_scheme=scheme, **device) as page:
        assert page.locator(PAIRS).count() == 12
        assert accessibility_violations(page) == ""
        assert page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]


def test_generated_shards_have_no_such_section(tmp_path: Path) -> None:
    generate(make_photos(tmp_path / "photos", 3), tmp_path / "shards")
    assert run_cli("report", tmp_path / "shards", "-o", tmp_path / "r.html").returncode == 0
    page = (tmp_path / "r.html").read_text("utf-8")
    assert 'id="pairs-4"' not in page and "python -m shardgen generate -i PHOTOS -o " in page


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [('"shift_x"', '"shift_q"', "pair has no shift_x"), ('"noise": ', '"noise":"', "is not valid JSON")],
)
def test_a_damaged_record_is_reported_and_the_rest_is_shown(
    old: str, new: str, message: str, packed: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(packed, tmp_path / "shards")) / "scale_2x"
    tar = max(folder.glob("train-*.tar"))
    tar.write_bytes(tar.read_bytes().replace(old.encode(), new.encode(), 1))
    result = run_cli("report", folder, "-o", tmp_path / "r.html")
    assert result.returncode == 1 and message in result.stderr and "The page lists them." in result.stderr
    page = (tmp_path / "r.html").read_text("utf-8")
    assert message in page and 'id="pairs-2"' in page


def test_difference_is_grey_where_lr_equals_hr() -> None:
    lr: Image8 = np.array([[[100, 100, 100], [110, 90, 200]]], np.uint8)
    hr = np.full((2, 4, 3), 100, np.uint8)
    assert difference(hr, lr).tolist() == [[[128, 128, 128], [168, 88, 255]]]
