"""`evaluate --compare-page`: the page in a real browser, what it omits, and files that it must not overwrite."""

import base64
import io
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import DEVICES, PHONE, WIDE, accessibility_violations, assert_accessible, opened
from helpers import make_photo, trainer
from PIL import Image
from playwright.sync_api import Browser, Locator, Page

from srshards.page.render import MAX_PAGE_BYTES
from srshards.terminal.sizes import format_bytes
from trainer.evaluation.results import ImageResult, SetResult
from trainer.models import network_spec
from trainer.models.weights import save_weights
from trainer.report import compare_page
from trainer.report.compare_page import MAX_NETWORKS, ComparePage
from trainer.report.crops import CROP_PX, Crops

NAMES = ("<a>", "b", "up")
VERSIONS = ["bicubic", *NAMES, "HR"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.pth of three untrained networks, one of which takes upsampled images."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(NAMES):
        (folder / name).mkdir()
        model = network_spec("ultra_lite", 1 if name == "up" else 2).build(seed)
        # Untrained networks hardly differ from bicubic.
        state = {key: tensor * (1 + 0.1 * seed) for key, tensor in model.state_dict().items()}
        save_weights(folder / name / "best.pth", state, None)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of photos: `one`, and `two` with an image larger than a crop, which has texture in a corner only."""
    folder = tmp_path_factory.mktemp("images")
    for name, number in (("one", 3), ("two", 1)):
        (folder / name).mkdir()
        for seed in range(number):
            Image.fromarray(make_photo(64, 80, seed)).save(folder / name / f"&{seed}.png")
    large = np.full((300, 320, 3), 120, np.uint8)
    large[-40:, -60:] = np.random.default_rng(0).integers(0, 256, (40, 60, 3))
    Image.fromarray(large).save(folder / "two" / "large.png")
    return folder


@pytest.fixture(scope="module")
def written(runs: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A page of three networks and two sets, and the JSON of the same command."""
    path = tmp_path_factory.mktemp("page") / "compare.html"
    sets = [word for name in ("one", "two") for word in ("--val", f"{name}={images / name}")]
    result = trainer("evaluate", *weights(runs), *sets, "--json", "--compare-page", path, "--device", "cpu")
    assert result.code == 0, result.err
    assert result.err == f"{path}: {format_bytes(path.stat().st_size)}\n"
    return path, json.loads(result.out)


@pytest.fixture(scope="module")
def shared(browser: Browser, written: tuple[Path, Any]) -> Iterator[Page]:
    """The page in a wide window, opened once. Tests leave no dialog open, and choose the versions that they expect."""
    with opened(browser, written[0], **WIDE) as page:
        yield page


def weights(runs: Path, *names: str) -> list[object]:
    return [word for name in names or NAMES for word in ("--weights", runs / name / "best.pth")]


def table(page: Page, label: str) -> list[list[str]]:
    rows = page.get_by_role("region", name=f"Table: {label}", exact=True).locator("tr").all()
    return [row.locator("th, td").all_text_contents() for row in rows]


def pixels(image: Locator) -> np.ndarray:
    content = base64.b64decode((image.get_attribute("src") or "").partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def shown(box: Locator) -> list[str]:
    """Return the versions in a comparison, as its images, tags and the name of its border say."""
    names = [
        (alt or "").partition(": ")[0] for alt in box.locator(".stage img").evaluate_all("all => all.map(i => i.alt)")
    ]
    assert box.locator(".stage .tag").all_text_contents() == names
    label = box.locator(".border").get_attribute("aria-label") or ""
    assert label.startswith(f"Border between {names[0]} and {names[1]}: ")
    return names


def choose(page: Page, box: Locator, side: str, version: str) -> None:
    box.locator(f"select[name={side}]").select_option(version)


# ---- the page


def test_the_page_is_small_and_recognised(written: tuple[Path, Any]) -> None:
    content = written[0].read_text()
    assert '<meta name="generator" content="trainer evaluate">' in content[:1024]
    assert "vegaEmbed" not in content, "there are no plots"


def test_tables_show_the_means_and_wins_of_each_set(shared: Page, written: tuple[Path, Any]) -> None:
    for one in written[1]["sets"]:
        head, *rows = table(shared, f"Means of {one['name']}")
        assert head == ["Version", "PSNR-Y", "SSIM-Y", "PSNR", "SSIM"]
        for row, (version, values) in zip(rows, one["mean"].items(), strict=True):
            psnr_y, ssim_y, psnr, ssim = (values[name] for name in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"))
            assert row == [version, f"{psnr_y:.2f} dB", f"{ssim_y:.4f}", f"{psnr:.2f} dB", f"{ssim:.4f}"]
        best = shared.get_by_role("region", name=f"Table: Means of {one['name']}").locator("strong").first
        assert best.inner_text() == f"{max(values['psnr_y'] for values in one['mean'].values()):.2f} dB"
        won = table(shared, f"Images of {one['name']} won")
        assert won[1:] == [[name, *(str(of[name]) for of in one["wins"].values())] for name in VERSIONS[:-1]]
    assert shared.locator("dl.networks dt").all_text_contents() == list(NAMES)


def test_the_page_begins_with_the_difference_to_bicubic(shared: Page, written: tuple[Path, Any]) -> None:
    sentences = []
    for one in written[1]["sets"]:
        psnr = {name: values["psnr_y"] for name, values in one["mean"].items()}
        best = max(NAMES, key=lambda name: psnr[name])
        difference = psnr[best] - psnr["bicubic"]
        side = "below" if difference < 0 else "above"
        seen = ", a difference that cannot be seen" if abs(difference) < 0.1 else ""
        text = f"{best}, the best of 3 networks, is {abs(difference):.2f} dB {side} bicubic in PSNR-Y on "
        sentences.append(f"{text}{one['name']}{seen}.")
    assert shared.locator(".verdict").inner_text() == " ".join(sentences)


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        (
            "psnr_y",
            {"bicubic": 30, "a": 30.07},
            "a is 0.07 dB above bicubic in PSNR-Y on s, a difference that cannot be seen.",
        ),
        (
            "psnr_y",
            {"bicubic": 30, "a": 29, "b": 28},
            "a, the best of 2 networks, is 1.00 dB below bicubic in PSNR-Y on s.",
        ),
        ("ssim_y", {"bicubic": 0.8, "a": 0.9}, "a is 0.1000 above bicubic in SSIM-Y on s."),
        (
            "lpips",
            {"bicubic": 0.4, "a": 0.3, "b": 0.2},
            "b, the best of 2 networks, is 0.2000 below bicubic in LPIPS on s, of which lower values are better.",
        ),
        ("psnr_y", {"bicubic": 30, "a": math.inf}, ""),
        ("niqe", {"bicubic": 5, "a": math.nan}, ""),
    ],
)
def test_the_verdict_names_side_and_size_of_the_difference(
    browser: Browser, tmp_path: Path, metric: str, values: dict[str, float], expected: str
) -> None:
    image = ImageResult("i", {name: {metric: value} for name, value in values.items()})
    page = ComparePage([(name, name) for name in values if name != "bicubic"], 1)
    page.begin(SetResult("s", "s", 2, [image]))
    page.write(tmp_path / "c.html")
    with opened(browser, tmp_path / "c.html", **WIDE) as shown_page:
        assert shown_page.locator(".verdict").all_inner_texts() == ([expected] if expected else [])
        best = min(values, key=values.__getitem__) if metric == "lpips" else max(values, key=values.__getitem__)
        bold = shown_page.locator(".values tr", has=shown_page.locator("strong")).locator("th").all_inner_texts()
        assert bold == ([] if metric == "niqe" else [best])


def test_every_image_has_its_values(shared: Page, written: tuple[Path, Any]) -> None:
    for one in written[1]["sets"]:
        for image in one["images"]:
            rows = table(shared, f"Values of {one['name']}: {image['image']}")[1:]
            assert [row[:2] for row in rows] == [
                [version, f"{values['psnr_y']:.2f} dB"] for version, values in image["values"].items()
            ]


def test_images_are_ordered_by_disagreement(shared: Page) -> None:
    for section in shared.locator("main > section").all():
        captions = section.locator("figcaption > span:not(.name)").all_text_contents()
        found = [float(caption.split()[1].rstrip(".")) for caption in captions]
        assert found == sorted(found, reverse=True) and found[0] > found[-1]


def test_large_images_are_cropped_where_the_networks_disagree(shared: Page, images: Path) -> None:
    scene = shared.locator(".scene", has_text="large.png")
    left, top = 320 - CROP_PX, 300 - CROP_PX
    place = f"Crop of 256 \N{MULTIPLICATION SIGN} 256 px, {left} px from the left and {top} px from the top."
    assert place in scene.locator("figcaption").first.inner_text()
    hr = np.asarray(Image.open(images / "two/large.png"))[top:, left:]
    assert np.array_equal(pixels(scene.locator(".versions img").last), hr)


def test_two_versions_are_chosen_by_keyboard_for_one_image(shared: Page, images: Path) -> None:
    choose(shared, shared.locator("#pair"), "left", "<a>")
    choose(shared, shared.locator("#pair"), "right", "b")
    first, second = (shared.locator(".scene").nth(number) for number in range(2))
    assert shown(first) == shown(second) == ["<a>", "b"]
    first.get_by_role("combobox", name="Right of").focus()
    shared.keyboard.press("End")
    assert shown(first) == ["<a>", "HR"] and shown(second) == ["<a>", "b"]
    name = first.locator(".name").inner_text().removeprefix("one: ")
    assert np.array_equal(pixels(first.locator(".stage img").nth(1)), np.asarray(Image.open(images / "one" / name)))
    first.get_by_role("combobox", name="Left of").focus()
    shared.keyboard.press("Home")
    assert shown(first) == ["bicubic", "HR"]
    border = first.get_by_role("slider", name="Border between bicubic and HR")
    border.press("Home")
    assert border.get_attribute("aria-valuetext") == "0 percent from the left"


def test_the_choice_for_all_images_replaces_that_for_one(shared: Page) -> None:
    choose(shared, shared.locator(".scene").nth(1), "left", "up")
    choose(shared, shared.locator("#pair"), "left", "bicubic")
    choose(shared, shared.locator("#pair"), "right", "up")
    assert [shown(scene) for scene in shared.locator(".scene").all()] == [["bicubic", "up"]] * 5
    selected = shared.locator(".scene select[name=right]").evaluate_all("all => all.map(one => one.value)")
    assert selected == ["up"] * 5


def test_choosing_the_version_of_the_other_side_exchanges_them(shared: Page) -> None:
    scene = shared.locator(".scene").first
    choose(shared, scene, "left", "b")
    choose(shared, scene, "right", "HR")
    choose(shared, scene, "left", "HR")
    assert shown(scene) == ["HR", "b"]


def test_versions_are_chosen_in_the_magnifier(shared: Page) -> None:
    choose(shared, shared.locator("#pair"), "left", "<a>")
    choose(shared, shared.locator("#pair"), "right", "b")
    shared.locator(".magnify").first.click()
    dialog = shared.locator("#magnifier")
    assert shown(dialog) == ["<a>", "b"]
    choose(shared, dialog, "right", "HR")
    scenes = shared.locator(".scene")
    assert shown(dialog) == shown(scenes.first) == ["<a>", "HR"] and shown(scenes.nth(1)) == ["<a>", "b"]
    facts = dialog.locator("dl.facts").inner_text()
    assert "bicubic" in facts and "PSNR-Y" in facts
    shared.get_by_role("button", name="Next image").click()
    assert shown(dialog) == ["<a>", "b"]
    shared.keyboard.press("Escape")
    choose(shared, scenes.nth(1), "right", "up")
    assert shown(scenes.nth(1)) == ["<a>", "up"]


def test_the_magnifier_opens_at_the_largest_zoom_that_fits(browser: Browser, written: tuple[Path, Any]) -> None:
    """Without scrolling: also if a larger one would fit but for the margin of the view."""
    with opened(browser, written[0], viewport={"width": 1400, "height": 900}) as page:
        magnify = page.locator(".scene", has_text="large.png").locator(".magnify")
        view = page.locator("#magnifier .view")
        magnify.click()
        others_px = 900 - view.evaluate("view => view.clientHeight")
        for height, zoom in ((3 * CROP_PX + 20, 2), (3 * CROP_PX + 50, 3)):
            page.keyboard.press("Escape")
            page.set_viewport_size({"width": 1400, "height": others_px + height})
            magnify.click()
            assert view.evaluate("view => [view.clientHeight, view.scrollHeight]") == [height, height]
            assert view.locator(".stage").evaluate("stage => stage.clientWidth") == zoom * CROP_PX
        page.set_viewport_size({"width": 1400, "height": 900})


@DEVICES
def test_no_accessibility_violations(
    browser: Browser, written: tuple[Path, Any], device: dict[str, Any], scheme: str
) -> None:
    with opened(browser, written[0], color_scheme=scheme, **device) as page:
        assert_accessible(page, device["viewport"]["width"])


def test_all_versions_are_side_by_side_without_javascript(browser: Browser, written: tuple[Path, Any]) -> None:
    context = browser.new_context(java_script_enabled=False, **WIDE)
    page = context.new_page()
    page.goto(written[0].as_uri())
    scene = page.locator(".scene").first
    assert scene.locator(".versions figcaption").all_inner_texts() == VERSIONS
    boxes = [image.bounding_box() for image in scene.locator(".versions img").all()]
    assert boxes[0]["x"] < boxes[1]["x"] and scene.locator(".values").is_visible()
    assert not scene.locator(".stage").is_visible() and not page.locator("select").first.is_visible()
    context.close()


def test_one_network_is_compared_with_bicubic(browser: Browser, runs: Path, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.html"
    result = trainer("evaluate", *weights(runs, "b"), "--hr", images / "one", "--compare-page", path)
    assert result.code == 0 and result.out.splitlines()[-1] == f"{path}: {format_bytes(path.stat().st_size)}"
    with opened(browser, path, **WIDE) as page:
        assert page.title() == "Comparison: bicubic and network"
        assert shown(page.locator(".scene").first) == ["bicubic", "network"]
        assert page.get_by_role("region", name="Table: Images of one won").count() == 0
        assert accessibility_violations(page) == ""


# ---- limits


def noise(seed: int, height: int = CROP_PX, width: int = CROP_PX) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_the_images_with_the_largest_disagreement_are_kept() -> None:
    crops = Crops(2)
    for number, difference in enumerate((5, 40, 0, 20, 40)):
        grey = np.full((30, 30, 3), 100, np.uint8)
        versions = {"bicubic": noise(number, 30, 30), "a": grey, "b": grey + np.uint8(difference), "HR": grey}
        crops.add(ImageResult(str(number), {}), versions)
    kept = crops.by_disagreement()
    assert [(crop.result.image, crop.disagreement) for crop in kept] == [("1", 40), ("4", 40)]
    assert not any(np.shares_memory(pixels, grey) for pixels in kept[1].versions.values())


def collected(num_networks: int, num_images: int, num_sets: int = 1) -> ComparePage:
    """Return a page of images of noise, which cannot be compressed."""
    names = [f"network-{number}" for number in range(num_networks)]
    page = ComparePage([(name, "weights") for name in names], num_sets)
    for number in range(num_sets):
        result = SetResult(f"set {number}", "folder", 2)
        crops = page.begin(result)
        for image in range(num_images):
            values = {version: {"psnr_y": 30.0} for version in ("bicubic", *names)}
            result.images.append(ImageResult(f"image {image}", values))
            versions = {name: noise(seed) for seed, name in enumerate(("bicubic", *names, "HR"))}
            crops.add(result.images[-1], versions)
    return page


def test_a_page_of_the_most_networks_has_at_least_one_image(tmp_path: Path) -> None:
    num_bytes = collected(MAX_NETWORKS, 2).write(tmp_path / "c.html")
    assert num_bytes == (tmp_path / "c.html").stat().st_size <= MAX_PAGE_BYTES
    assert "1 of 2 images are shown: those with the largest disagreement." in (tmp_path / "c.html").read_text()


def test_long_names_do_not_break_and_parts_of_photos_are_in_words(browser: Browser, tmp_path: Path) -> None:
    long = "runs/lite-4x-an-experiment-with-a-long-name-"
    page = ComparePage([(f"{long}{number}", "weights") for number in range(2)], 1)
    result = SetResult("val", "folder", 2)
    crops = page.begin(result)
    versions = ("bicubic", f"{long}0", f"{long}1")
    result.images.append(ImageResult("sky/1.jpg [180, 0, 720, 720]", {name: {"psnr_y": 30.0} for name in versions}))
    crops.add(result.images[0], {name: noise(seed, 64, 64) for seed, name in enumerate((*versions, "HR"))})
    page.write(tmp_path / "c.html")
    short = ["runs/lit…h-a-long-name-0", "runs/lit…h-a-long-name-1"]
    with opened(browser, tmp_path / "c.html", **PHONE) as opened_page:
        assert shown(opened_page.locator(".scene")) == short
        assert [row[0] for row in table(opened_page, "Values of sky/1.jpg")] == ["Version", "bicubic", *short]
        names = opened_page.locator(".run-name")
        assert set(names.evaluate_all("all => all.map((name) => name.getClientRects().length)")) == {1}
        assert names.first.get_attribute("title") == f"{long}0"
        place = (
            "From the photo's crop of 720 \N{MULTIPLICATION SIGN} 720 px, 180 px from the left and 0 px from the top."
        )
        assert place in opened_page.locator(".scene figcaption").first.inner_text()
        width = opened_page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390


def test_images_of_all_sets_share_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_page, "MAX_PAGE_BYTES", 3_400_000)
    collected(1, 4, num_sets=2).write(tmp_path / "c.html")
    content = (tmp_path / "c.html").read_text()
    assert len(content) <= 3_400_000
    assert content.count("2 of 4 images are shown") == 2


def test_more_networks_than_a_page_can_show_are_refused(runs: Path, images: Path, tmp_path: Path) -> None:
    files = [Path(shutil.copy(runs / "b/best.pth", tmp_path / f"{number}.pth")) for number in range(MAX_NETWORKS + 1)]
    many = [word for path in files for word in ("--weights", path)]
    result = trainer("evaluate", *many, "--hr", images / "one", "--compare-page", tmp_path / "c.html")
    assert result.code == 2 and result.out == ""
    assert f"a page can compare {MAX_NETWORKS} networks, not {len(files)}; pass fewer --weights" in result.err


# ---- files


def test_only_a_page_of_this_command_is_replaced(runs: Path, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.html"
    command = ("evaluate", *weights(runs, "b"), "--hr", images / "one", "--compare-page", path)
    for content in ("notes", '<meta name="generator" content="shardgen or trainer report">'):
        path.write_text(content)
        result = trainer(*command)
        assert result.code == 2 and result.out == "" and path.read_text() == content
        assert (
            f"{path} already exists, and trainer evaluate did not write it; pass another --compare-page" in result.err
        )
    path.unlink()
    for _ in range(2):
        assert trainer(*command).code == 0
    result = trainer("report", tmp_path, "-o", path)
    assert result.code == 2 and "did not write it; pass another --output" in result.err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("-", "'-': expected a file, not standard output; pass e.g. compare.html, or ./- for a file of that name"),
        ("pages", "pages is a folder; pass the file to write, e.g. pages/compare.html"),
        ("new/", "new is a folder; pass the file to write, e.g. new/compare.html"),
    ],
)
def test_other_than_a_file_is_refused_before_the_evaluation(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pages").mkdir()
    result = trainer("evaluate", "--weights", "none.pth", "--hr", "none", "--compare-page", path)
    assert result.code == 2 and result.out == ""
    assert result.err.splitlines()[-1] == f"Error: Invalid value for '--compare-page': {message}"
    assert [file.name for file in tmp_path.iterdir()] == ["pages"]


def test_the_table_is_printed_even_if_the_page_cannot_be_written(runs: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file/c.html"
    result = trainer("evaluate", *weights(runs, "b"), "--hr", images / "one", "--compare-page", path)
    assert result.code == 1 and f"cannot write {path}" in result.err
    assert "bicubic" in result.out


def test_a_missing_extra_is_reported_before_the_evaluation(
    runs: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("trainer.report.compare_page", "srshards.page.render", "srshards.page.plots"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    command = ("evaluate", *weights(runs, "b"), "--hr", images / "one")
    result = trainer(*command, "--compare-page", tmp_path / "c.html")
    assert result.code == 2 and result.out == ""
    assert result.err.startswith(
        "Error: this requires jinja2, which is not installed; run `pip install 'sr-shards[report]'"
    )
    assert trainer(*command).code == 0
