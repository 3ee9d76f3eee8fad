"""Parts shared by all pages, in a real browser: plots, comparison sliders and the magnifier."""

from collections.abc import Iterator
from pathlib import Path

import altair as alt
import numpy as np
import pytest
from browser import DEVICES, PHONE, WIDE, assert_accessible, opened
from helpers import make_photo
from PIL import Image
from playwright.sync_api import Browser, Page

from srshards.imaging.resample import resize
from srshards.page.pictures import Comparison, Layer, lossless_uri
from srshards.page.plots import Plot
from srshards.page.render import MAX_PAGE_BYTES, render

_SIZE = 64
_OWN_BYTES = 1_300_000  # limit for a page without large images and data


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two comparisons of three layers, a plot, and a name that must be escaped."""
    items = []
    for number in range(2):
        hr = make_photo(_SIZE, _SIZE, seed=number)
        lr = resize(hr, 16, 16, "area")
        layers = [
            Layer("HR", lossless_uri(hr)),
            Layer("LR", lossless_uri(lr)),
            Layer("up", lossless_uri(resize(lr, _SIZE, _SIZE, "cubic"))),
        ]
        name = "a/<script>alert(1)</script>&\udc80.jpg" if number else "first.jpg"
        facts = [("key", f"{number:012}"), ("blur", "sigma 1.2")]
        items.append(Comparison(f"sample-{number}", name, _SIZE, _SIZE, layers, "30 dB", facts))
    rows = [("mountain", 12), ("sky", 3)]
    data = alt.Data(values=[{"class": name, "samples": count} for name, count in rows])
    chart = alt.Chart(data).mark_bar().encode(x="samples:Q", y="class:N").properties(height=80)
    plot = Plot("Samples per class", "How many.", chart, ("class", "samples"), [(n, str(c)) for n, c in rows])
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(render("page_for_tests", "all_parts.html", plots=[plot], items=items))
    return path


@pytest.fixture(scope="module")
def shared(browser: Browser, page_file: Path) -> Iterator[Page]:
    """The page in a wide window, opened once. Tests do not move its borders."""
    with opened(browser, page_file, **WIDE) as page:
        yield page


def _border_positions(page: Page, figure: str) -> list[float]:
    return page.evaluate(
        "id => { const stage = document.querySelector(`#${id} .stage`);"
        " return [1, 2].map(n => Number(stage.style.getPropertyValue(`--cut${n}`))) }",
        figure,
    )


def test_page_size_is_limited(page_file: Path) -> None:
    assert page_file.stat().st_size < _OWN_BYTES < MAX_PAGE_BYTES


def test_names_are_escaped(shared: Page) -> None:
    assert shared.locator("#sample-1 .name").inner_text() == "a/<script>alert(1)</script>&\\udc80.jpg"


def test_plots_are_drawn_with_their_tables(shared: Page) -> None:
    assert shared.locator(".drawing svg .mark-rect path[aria-roledescription=bar]").count() == 2
    shared.get_by_text("Figures").click()
    assert shared.locator(".plot table").inner_text().split() == ["class", "samples", "mountain", "12", "sky", "3"]


@DEVICES
def test_page_has_no_accessibility_violations(browser: Browser, page_file: Path, device: dict, scheme: str) -> None:
    with opened(browser, page_file, color_scheme=scheme, **device) as page:
        assert_accessible(page, device["viewport"]["width"])


def test_dragged_border_moves_the_other_along(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **WIDE) as page:
        assert _border_positions(page, "sample-0") == [33, 67]
        box = page.locator("#sample-0 .stage").bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + 0.33 * box["width"], middle)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.5 * box["width"], middle, steps=4)
        first, second = _border_positions(page, "sample-0")
        assert first == pytest.approx(50, abs=2)
        assert second == 67
        page.mouse.move(box["x"] + 0.9 * box["width"], middle, steps=4)
        page.mouse.up()
        first, second = _border_positions(page, "sample-0")
        assert first == second == pytest.approx(90, abs=2)
        assert _border_positions(page, "sample-1") == [33, 67]


def test_press_moves_the_nearest_border(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **PHONE) as page:
        page.locator("#sample-0 .stage").tap(position={"x": 30, "y": 20})
        first, second = _border_positions(page, "sample-0")
        assert first < 15
        assert second == 67


def test_borders_move_by_keyboard(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **WIDE) as page:
        border = page.get_by_role("slider", name="Border between LR and up: first.jpg")
        border.focus()
        page.keyboard.press("ArrowLeft")
        assert _border_positions(page, "sample-0") == [33, 66]
        page.keyboard.press("Home")
        assert _border_positions(page, "sample-0") == [0, 0]
        assert border.get_attribute("aria-valuetext") == "0 percent from the left"


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_magnified_pixels_are_exact(browser: Browser, page_file: Path, tmp_path: Path, ratio: int) -> None:
    """Each HR pixel is a square of screen pixels of exactly its colour."""
    size = {"viewport": {"width": 900, "height": 800}, "device_scale_factor": ratio}
    with opened(browser, page_file, **size) as page:
        page.locator("#sample-0 .magnify").click()
        page.get_by_role("button", name="Smaller").click()
        zoom = int(page.locator("dialog output").inner_text().rstrip("\N{MULTIPLICATION SIGN}"))
        for border in page.locator("dialog .border").all():
            border.press("End")
        page.locator("dialog .tag").first.evaluate("tag => tag.remove()")
        page.locator("dialog .border").evaluate_all("all => all.forEach(one => one.remove())")
        box = page.locator("dialog .stage").bounding_box()
        page.screenshot(path=tmp_path / "screen.png")
    screen = np.asarray(Image.open(tmp_path / "screen.png").convert("RGB"))
    expected = make_photo(_SIZE, _SIZE, seed=0).repeat(zoom, axis=0).repeat(zoom, axis=1)
    rim = 4 * ratio  # excludes the corners and surroundings
    inside = expected[rim:-rim, rim:-rim]
    left, top = int(box["x"] * ratio) + rim, int(box["y"] * ratio) + rim
    height, width = inside.shape[:2]
    around = [screen[y : y + height, x : x + width] for y in range(top, top + 3) for x in range(left, left + 3)]
    assert any(np.array_equal(seen, inside) for seen in around)


def test_magnifier_steps_through_images_and_closes(shared: Page) -> None:
    shared.locator("#sample-0 .magnify").press("Enter")
    title = shared.locator("#magnifier-title")
    assert title.inner_text() == "first.jpg"
    assert shared.locator("dialog dl.facts").inner_text().split() == ["key", "0" * 12, "blur", "sigma", "1.2"]
    shared.keyboard.press("PageDown")
    assert title.inner_text().startswith("a/<script>")
    shared.keyboard.press("Escape")
    shared.wait_for_function("document.activeElement.closest('.comparison')?.id === 'sample-1'")
    assert not shared.locator("dialog").is_visible()


def test_page_is_readable_without_scripts(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False, **WIDE)
    page = context.new_page()
    page.goto(page_file.as_uri())
    boxes = [image.bounding_box() for image in page.locator("#sample-0 .layer img").all()]
    assert boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]
    assert page.locator("#sample-0 dl.facts").is_visible()
    context.close()
