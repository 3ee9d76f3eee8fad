"""`python -m trainer report`: the page in a real browser, and errors for unusable runs."""

import base64
import contextlib
import io
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import DEVICES, PHONE, WIDE, accessibility_violations, opened
from helpers import SMALL, TIMEOUT_S, Result, generate, trainer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from srshards.imaging.contact_sheet import GRID_TEXT, Row, grid, save_png
from srshards.page.render import MAX_PAGE_BYTES
from srshards.storage.store import parse_address, write_bytes
from srshards.terminal.sizes import format_bytes
from tests.drill.s3_server import Bucket
from trainer.report.charts import style
from trainer.report.names import sample_in_words, shortened
from trainer.report.previews import by_importance
from trainer.report.tables import NONE
from trainer.report.thinning import Thinned
from trainer.training.account import PHASE_NAMES

NAMES = ("first", "second")
TITLES = ("bicubic", "network", "HR")


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs that differ in network input and rate. Tests must not modify it."""
    folder = tmp_path_factory.mktemp("report")
    generate(photos, folder / "shards", "-s", 2, "--val-fraction", 0.2)
    args = ("--shards", folder / "shards/scale_2x", *SMALL, "--steps", 12, "--val-every", 4, "--out", folder / "runs")
    for name, *others in (("first", "--lr", 4e-3), ("second", "--lr", 1e-3, "--input", "up")):
        result = trainer(*args, "--run", name, *others)
        assert result.code == 0, result.err
    return folder / "runs"


@pytest.fixture(scope="module")
def page_file(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    result = report(runs / "first", runs / "second", output=path)
    assert result.out == f"{path}: {format_bytes(path.stat().st_size)}, 2 runs: first, second\n"
    return path


@pytest.fixture(scope="module")
def shared(browser: Browser, page_file: Path) -> Iterator[Page]:
    """The report of both runs in a wide window, opened once. Tests leave all runs and steps visible, no dialog open."""
    with opened(browser, page_file, **WIDE) as page:
        yield page


def report(*folders: object, output: Path, expect: int = 0) -> Result:
    result = trainer("report", *folders, "-o", output)
    assert result.code == expect, result.err + result.out
    return result


@contextlib.contextmanager
def report_page(browser: Browser, folder: Path, *runs: object, **device: Any) -> Iterator[Page]:
    """Write a report of the runs into `folder` and open it."""
    report(*runs, output=folder / "r.html")
    with opened(browser, folder / "r.html", **(device or WIDE)) as page:
        yield page


def runs_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def journal(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """Return the entries of the training log, with times, optionally of some kinds only."""
    entries = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [entry for entry in entries if not kinds or entry["event"] in kinds]


def ranked(runs: Path) -> list[str]:
    """Return NAMES in the order of the page, with the highest PSNR-Y first."""
    return sorted(NAMES, key=lambda name: -max(line["psnr_y"] for line in journal(runs / name, "val")))


def psnr_at(run: Path, step: int) -> float:
    return next(float(entry["psnr_y"]) for entry in journal(run, "val") if entry["step"] == step)


def make_run(folder: Path, lines: list[dict[str, Any]], **settings: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
    return folder


def trained(step: int, **values: float | None) -> dict[str, Any]:
    figures = {"loss": 0.03, "lr": 1e-3, "patches_per_s": 50.0, "data_wait": 0.01, "seconds": 2.0}
    return {"event": "train", "step": step, **figures, **values}


def validated(step: int, psnr_y: float | None = 30.0, bicubic: float = 29.0) -> dict[str, Any]:
    return {
        "event": "val",
        "step": step,
        **{"psnr_y": psnr_y, "ssim_y": 0.8, "bicubic_psnr_y": bicubic, "bicubic_ssim_y": 0.7},
    }


def table(page: Page, label: str) -> list[list[str]]:
    rows = page.get_by_role("region", name=f"Table: {label}", exact=True).locator("tr").all()
    return [row.locator("th, td").all_text_contents() for row in rows]


def rows_of_runs(page: Page) -> list[list[str]]:
    """Return the column names and a row per run, from the table or, for a single run, from the list of properties."""
    alone = page.locator("#runs + dl")
    return [alone.locator(tag).all_text_contents() for tag in ("dt", "dd")] if alone.count() else table(page, "Runs")


def plot(page: Page, title: str) -> Locator:
    return page.locator(".plot").filter(has=page.get_by_role("heading", name=title, exact=True))


def pixels(image: Locator) -> np.ndarray:
    content = base64.b64decode((image.get_attribute("src") or "").partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def cell(run: Path, step: int, row: int, column: int) -> np.ndarray:
    """Crop an image from a preview, at the position in its metadata."""
    with Image.open(run / "previews" / f"step-{step:06d}.png") as picture:
        left, top, width, height = json.loads(picture.text[GRID_TEXT])["rows"][row]["cells"][column]
        return np.asarray(picture.crop((left, top, left + width, top + height)))


# ---- two runs, in a browser


def test_the_table_has_a_row_per_run(shared: Page, runs: Path) -> None:
    head, *rows = rows_of_runs(shared)
    assert head[:6] == ["Run", "Best PSNR-Y", "Over bicubic", "SSIM-Y", "Model", "Training time"], "results first"
    tiles = dict(zip(*(shared.locator(f".tiles {tag}").all_text_contents() for tag in ("dt", "dd")), strict=True))
    shared.get_by_text("More about the runs").click()
    details = table(shared, "More about the runs")
    best = {}
    for name, row, more in zip(ranked(runs), rows, details[1:], strict=True):
        cells = dict(zip([*head, *details[0]], [*row, *more], strict=True))
        vals = journal(runs / name, "val")
        best[name] = max(vals, key=lambda line: line["psnr_y"])
        assert (cells["Run"], cells["State"], cells["Steps"]) == (name, "finished", "12 of 12")
        assert cells["Best PSNR-Y"] == f"{best[name]['psnr_y']:.2f} dB"
        assert cells["Best at step"] == str(best[name]["step"])
        assert cells["Over bicubic"] == f"{best[name]['psnr_y'] - best[name]['bicubic_psnr_y']:+.2f} dB"
        assert cells["SSIM-Y"] == f"{best[name]['ssim_y']:.4f}"
        assert cells["Last PSNR-Y"] == f"{vals[-1]['psnr_y']:.2f} dB"
        laps = journal(runs / name, "train")
        assert cells["Last loss"] == f"{laps[-1]['loss']:.5f}"
        assert cells["Patches/s"] == f"{np.median([line['patches_per_s'] for line in laps]):,.1f}"
        assert cells["Folder"] == str(runs / name)
        assert cells["Model"] == "ultra_lite"
    assert tiles["best PSNR-Y"] == f"{max(one['psnr_y'] for one in best.values()):.2f} dB"
    shared.get_by_text("More about the runs").click()


def test_each_plot_has_a_line_per_run_and_a_table(shared: Page, runs: Path) -> None:
    titles = shared.locator(".plot h3").all_inner_texts()
    assert titles == [
        *("PSNR-Y", "Loss", "PSNR-Y over training time", "SSIM-Y", "Learning rate", "Patches per second"),
        *("Waiting for data", "Wall-clock time"),
    ]
    for title in titles[:-1]:
        assert plot(shared, title).locator(".mark-line path").count() == 2, title
    strokes = plot(shared, "Loss").locator(".mark-line path")
    for attribute in ("stroke", "stroke-dasharray"):
        assert len({one.get_attribute(attribute) for one in strokes.all()}) == 2, attribute
    vals = [journal(runs / name, "val") for name in ranked(runs)]
    assert f"bicubic {vals[0][0]['bicubic_psnr_y']:.2f} dB" in plot(shared, "PSNR-Y").locator("svg").inner_html()
    plot(shared, "PSNR-Y").get_by_text("Figures").click()
    assert table(shared, "PSNR-Y") == [
        ["Step", *ranked(runs)],
        *([str(a["step"]), f"{a['psnr_y']:.2f} dB", f"{b['psnr_y']:.2f} dB"] for a, b in zip(*vals, strict=True)),
    ]


def test_a_stacked_bar_shows_the_wall_clock_time_of_each_run(shared: Page, runs: Path) -> None:
    bars = plot(shared, "Wall-clock time").locator(".mark-rect path")
    accounts = [journal(runs / name, "account")[-1] for name in ranked(runs)]
    assert bars.count() == sum(account[key] > 0 for account in accounts for key in PHASE_NAMES)
    assert len({bar.get_attribute("fill") for bar in bars.all()}) == len(PHASE_NAMES)
    plot(shared, "Wall-clock time").get_by_text("Figures").click()
    head, *rows = table(shared, "Wall-clock time")
    assert head == [
        *("Run", "Wall clock", "Steps", "Data wait", "Validation", "Saving", "Start-up", "Rest", "Steps, first to last")
    ]
    for name, account, row in zip(ranked(runs), accounts, rows, strict=True):
        total_s = sum(account[key] for key in PHASE_NAMES)
        shares = [f"{account[key] / total_s:.2%}" for key in PHASE_NAMES]
        assert row == [name, f"{total_s:.0f} s", *shares, f"{account['steps_share']:.2%}"]


@pytest.mark.parametrize("width", [1400, 390])
def test_the_name_of_a_run_is_above_its_bar(browser: Browser, tmp_path: Path, width: int) -> None:
    """And the axis ends at 100%, although rounded shares may sum to less."""
    account = {"event": "account", "step": 5, **dict.fromkeys(PHASE_NAMES, 1.0), "saving_s": 2.0, "steps_share": 0.9}
    run = make_run(tmp_path / "first", [trained(5), validated(5), account])
    with report_page(browser, tmp_path, run, viewport={"width": width, "height": 900}) as page:
        drawing = plot(page, "Wall-clock time").locator(".drawing svg")
        name = drawing.get_by_text("first").bounding_box()
        bar = drawing.locator(".mark-rect path").first.bounding_box()
        legend = drawing.locator(".role-legend").first.bounding_box()
        assert name and bar and legend
        assert legend["y"] + legend["height"] <= name["y"] and name["y"] + name["height"] <= bar["y"] + 1
        expect(drawing.get_by_text("100%")).to_be_visible()


def test_the_tooltip_shows_the_values_of_all_runs(shared: Page, runs: Path) -> None:
    drawing = plot(shared, "PSNR-Y").locator(".drawing svg")
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    assert box is not None
    tip = shared.locator("#vg-tooltip-element.visible")
    for x in itertools.islice(itertools.cycle((0, 1)), 100):  # a late scroll event may hide it
        shared.mouse.move(box["x"] + 0.55 * box["width"] + x, box["y"] + 0.4 * box["height"])
        if tip.is_visible():
            break
    values = [text for name in ranked(runs) for text in (name, f"{psnr_at(runs / name, 8):.2f} dB")]
    assert tip.locator("td").all_inner_texts() == ["Step", "8", *values]


def test_runs_and_early_steps_can_be_hidden(shared: Page) -> None:
    last = shared.get_by_role("checkbox").last
    last.uncheck()
    shared.wait_for_selector('#controls[data-applied="[[1],0]"]')
    for title in ("Loss", "PSNR-Y over training time"):
        assert plot(shared, title).locator(".mark-line path").count() == 1
    assert plot(shared, "Wall-clock time").locator(".mark-rect path").count() <= len(PHASE_NAMES)
    shared.get_by_role("combobox", name="Steps").select_option("last 50%")
    shared.wait_for_selector('#controls[data-applied="[[1],6]"]')
    assert plot(shared, "PSNR-Y").locator(".role-mark.mark-symbol path").count() == 2, "steps 8 and 12"
    last.check()
    shared.wait_for_selector('#controls[data-applied="[[],6]"]')
    assert plot(shared, "PSNR-Y").locator(".role-mark.mark-symbol path").count() == 4
    shared.get_by_role("combobox", name="Steps").select_option(index=0)
    shared.wait_for_selector('#controls[data-applied="[[],0]"]')
    assert plot(shared, "PSNR-Y").locator(".role-mark.mark-symbol path").count() == 6


def test_the_step_slider_shows_previews_of_each_step(shared: Page, runs: Path) -> None:
    figures = shared.locator(".comparison")
    assert figures.count() == 6, "three images of two runs"
    slider = shared.get_by_role("slider", name="Step", exact=True)
    assert slider.get_attribute("aria-valuetext") == "step 12"
    slider.focus()
    for step, key in ((12, "End"), (8, "ArrowLeft"), (4, "Home")):
        shared.keyboard.press(key)
        assert shared.locator(".steps output").inner_text() == str(step)
        for number in range(6):
            row, name = number // 2, ranked(runs)[number % 2]
            images = figures.nth(number).locator("img")
            for column in range(3):
                assert np.array_equal(pixels(images.nth(column)), cell(runs / name, step, row, column))
        psnr = psnr_at(runs / ranked(runs)[1], step)
        caption = figures.nth(1).locator("figcaption").inner_text()
        assert f"step {step}" in caption and f"all images: {psnr:.2f} dB" in caption and "network" in caption
    box = slider.bounding_box()
    assert box is not None
    # Once the layout is stable: it moves while images load.
    slider.click(position={"x": box["width"] - 5, "y": box["height"] / 2})
    assert slider.get_attribute("aria-valuetext") == "step 12"
    figures.nth(1).locator(".magnify").click()
    title = rf"class\d/img\d+\.\w+, {ranked(runs)[1]}, step 12"
    assert re.fullmatch(title, shared.locator("#magnifier-title").inner_text())
    shared.keyboard.press("Escape")
    assert not shared.locator("#magnifier-title").is_visible()


def test_the_border_between_images_can_be_dragged(shared: Page) -> None:
    stage = shared.locator(".comparison .stage").nth(1)
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    shared.mouse.move(box["x"] + 0.33 * box["width"], box["y"] + 0.5 * box["height"])
    shared.mouse.down()
    shared.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    shared.mouse.up()
    assert float(stage.evaluate("stage => stage.style.getPropertyValue('--cut1')")) == pytest.approx(60, abs=2)


def test_different_settings_are_marked_and_equal_ones_folded(shared: Page, runs: Path) -> None:
    """With the values other than that of the best run."""
    names = ranked(runs)
    values = {"input": ("lr", "up"), "lr": ("0.004", "0.001"), "parameters": ("45,156", "43,203")}
    expected = [
        [f"\N{NOT EQUAL TO} {name}", *(both if names[0] == "first" else both[::-1])] for name, both in values.items()
    ]
    assert table(shared, "Settings that differ") == [["Setting", *names], *expected]
    assert shared.locator("#settings ~ .settings mark").all_text_contents() == [row[-1] for row in expected]
    background = "cell => getComputedStyle(cell).backgroundColor"
    assert shared.locator("mark").first.evaluate(background) != shared.locator("td").first.evaluate(background)
    folded = shared.locator("details").filter(has_text="settings are equal in all runs")
    assert not folded.get_by_role("region").is_visible()
    folded.locator("summary").click()
    equal = table(shared, "Settings that are equal")
    assert ["batch-size", "4"] in equal and ["total steps", "12"] in equal and ["init", "default"] in equal


@DEVICES
def test_no_accessibility_violations(browser: Browser, page_file: Path, device: dict[str, Any], scheme: str) -> None:
    with opened(browser, page_file, color_scheme=scheme, **device) as page:
        for summary in page.locator("summary").all():
            summary.click()
        assert accessibility_violations(page) == ""
        assert page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]


def test_tables_and_images_work_without_javascript(browser: Browser, page_file: Path, runs: Path) -> None:
    names = ranked(runs)
    context = browser.new_context(java_script_enabled=False, **WIDE)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert [row[0] for row in rows_of_runs(page)] == ["Run", *names]
    assert np.array_equal(
        pixels(page.locator(".comparison").nth(1).locator("img").nth(1)), cell(runs / names[1], 12, 0, 1)
    )
    assert not page.locator("#step").is_visible()
    context.close()


# ---- unusual runs


def test_a_report_of_one_run(browser: Browser, runs: Path, tmp_path: Path) -> None:
    with report_page(browser, tmp_path, runs / "first") as page:
        assert page.title() == "Training: first"
        assert page.get_by_role("checkbox").count() == 0
        assert ["lr", "0.004"] in table(page, "Settings")
        assert page.locator(".comparison").count() == 3
        assert page.locator("tr.best, mark").count() == 0
        assert page.get_by_role("region", name="Table: Runs").count() == 0, "a single run needs no table"
        last = page.locator("#runs + dl dd").last
        assert last.inner_text() == str(runs / "first") and last.is_visible()


def test_a_report_of_an_unfinished_run(browser: Browser, runs: Path, tmp_path: Path) -> None:
    """Its last log line is incomplete, and its last preview is not logged yet."""
    run = tmp_path / "running"
    shutil.copytree(runs / "first", run)
    lines = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    last = next(number for number, line in enumerate(lines) if '"val", "step": 12' in line)
    (run / "journal.jsonl").write_text("".join(lines[:last]) + lines[last][:-20])
    with report_page(browser, tmp_path, run) as page:
        row = dict(zip(*rows_of_runs(page), strict=True))
        assert (row["Run"], row["State"], row["Steps"]) == ("running", "not finished", "12 of 12")
        assert page.locator("#step").get_attribute("data-stops") == "4 8"
        assert "cannot be read" not in page.content()
        assert f"{run}/previews: step 12 omitted, not in the journal" in page.content()


def test_runs_without_metrics(browser: Browser, tmp_path: Path) -> None:
    """One has no log yet, the other no validation."""
    started = make_run(tmp_path / "started", [], steps=100)
    training = make_run(tmp_path / "training", [trained(5)], steps=100)
    (started / "journal.jsonl").unlink()
    for folders, num_plots in (([started], 0), ([started, training], 4)):
        with report_page(browser, tmp_path, *folders) as page:
            row = dict(zip(*rows_of_runs(page)[:2], strict=True))
            assert (row["State"], row["Steps"], row["Best PSNR-Y"]) == ("not finished", "0 of 100", NONE)
            assert "no validation yet, so there is no result to judge." in page.locator(".verdict").inner_text()
            assert accessibility_violations(page) == ""
            assert "There are none yet" in page.locator("main").inner_text()
            assert page.locator(".plot").count() == num_plots


def test_damaged_files_are_listed_and_others_shown(browser: Browser, runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "broken"
    shutil.copytree(runs / "first", run)
    lines = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    lines[2:2] = ['{"event": "train", "ste\n', '{"event": "train", "step": -1}\n', "[" * 100_000 + "\n"]
    (run / "journal.jsonl").write_text("".join(lines))
    (run / "config.yaml").write_text("steps: [12\n")
    picture = run / "previews/step-000008.png"
    picture.write_bytes(picture.read_bytes()[:2000])
    text = json.loads(Image.open(run / "previews/step-000004.png").text[GRID_TEXT])
    text["rows"][0]["cells"][1][0] = 10_000
    with Image.open(run / "previews/step-000004.png") as moved:
        moved.info[GRID_TEXT] = json.dumps(text)
        save_png(moved.copy(), run / "previews/step-000004.png", "trainer train")
    with report_page(browser, tmp_path, run) as page:
        shown = page.locator("main").inner_text()
        assert f"{run}/journal.jsonl: 3 unreadable lines, starting with line 3" in shown
        assert f"{run}/config.yaml cannot be read" in shown
        page.get_by_text("Omitted previews").click()
        shown = page.locator("main").inner_text()
        assert f"{run}/previews/step-000008.png: is damaged: " in shown
        assert f"{run}/previews/step-000004.png: is damaged: invalid layout" in shown
        assert page.locator(".comparison").count() == 3
        assert plot(page, "Loss").locator(".mark-line path").count() == 1


def test_previews_of_older_versions_are_shown_uncut(browser: Browser, runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "old"
    shutil.copytree(runs / "first", run)
    for picture in (run / "previews").iterdir():
        with Image.open(picture) as image:
            plain = image.copy()
        plain.save(picture)
    (run / "plan.json").unlink()
    with report_page(browser, tmp_path, run) as page:
        assert page.locator(".comparison").count() == 0
        assert "The complete preview of step 12" in page.locator(".whole").inner_text()
        assert np.array_equal(pixels(page.locator(".whole img")), np.asarray(plain_of(run, 12)))
        row = dict(zip(*rows_of_runs(page), strict=True))
        assert (row["State"], row["Steps"]) == ("finished", "12 of 12"), "config.yaml has the steps too"
        page.get_by_text("Omitted previews").click()
        assert "old: 1 of 3 previews are shown" in page.locator("main").inner_text()


def plain_of(run: Path, step: int) -> Image.Image:
    with Image.open(run / "previews" / f"step-{step:06d}.png") as picture:
        return picture.convert("RGB")


def test_null_and_nan_values(browser: Browser, tmp_path: Path) -> None:
    """The PSNR of equal images is null; other programs may log NaN."""
    lines = [trained(1), trained(2, loss=math.nan), trained(3, data_wait=None, patches_per_s=math.inf)]
    lines += [validated(2, None), validated(3, 31.0), validated(4, None)]
    lines += [{"event": "error", "step": 4, "message": "the disk is <full>"}]
    with report_page(browser, tmp_path, make_run(tmp_path / "r", lines, steps=4)) as page:
        head, row = rows_of_runs(page)
        cells = dict(zip(head, row, strict=True))
        assert (cells["Best PSNR-Y"], cells["Best at step"], cells["Last PSNR-Y"]) == ("31.00 dB", "3", "\N{EN DASH}")
        assert cells["State"] == "failed"
        assert "r: ended with an error: the disk is <full>" in page.locator("main").inner_text()


def test_runs_without_an_account_have_a_note_instead_of_a_bar(browser: Browser, tmp_path: Path) -> None:
    """The last valid line counts. Damaged ones, and those of a run that is resumed from an earlier step, do not."""
    account = {"event": "account", "step": 5, **dict.fromkeys(PHASE_NAMES, 5.0), "steps_share": 0.9}
    wrong = [account | {"rest_s": -1.0}, account | {"steps_s": None}, account | dict.fromkeys(PHASE_NAMES, 0)]
    new = make_run(
        tmp_path / "new", [trained(5), account | {"steps_s": 1.0}, account | {"steps_s": 75.0}, *wrong, validated(5)]
    )
    old = make_run(tmp_path / "old", [trained(5), validated(5)])
    note = (
        "old: no account of the wall-clock time; a run writes it at each save, and runs of earlier versions have none."
    )
    with report_page(browser, tmp_path, old, new) as page:
        assert note in page.locator(".note li").all_inner_texts()
        assert plot(page, "Wall-clock time").locator(".mark-rect path").count() == len(PHASE_NAMES)
        plot(page, "Wall-clock time").get_by_text("Figures").click()
        (row,) = table(page, "Wall-clock time")[1:]
        assert row == ["new", "1 min 40 s", "75.00%", *["5.00%"] * 5, "90.00%"]
    with report_page(browser, tmp_path, old) as page:
        assert note in page.locator(".note li").all_inner_texts()
        assert "Wall-clock time" not in page.locator(".plot h3").all_inner_texts()


def test_incomparable_runs_have_a_note(browser: Browser, tmp_path: Path) -> None:
    for number, (scale, bicubic) in enumerate(((2, 33.0), (4, 29.0))):
        run = make_run(tmp_path / f"r{number}", [trained(5), validated(5, 33.5 - 2 * number, bicubic)])
        (run / "plan.json").write_text(json.dumps({"steps": 5, "scale": scale}))
    with report_page(browser, tmp_path, tmp_path / "r0", tmp_path / "r1") as page:
        text = page.locator("main").inner_text()
        assert "These runs have different scales (2\N{MULTIPLICATION SIGN}, 4\N{MULTIPLICATION SIGN})" in text
        assert "the PSNR of bicubic differs" in text
        assert "Gain over bicubic" in page.locator(".plot h3").all_inner_texts()
        assert page.locator("header").get_by_text("r1").count() == 1, "the best has the highest gain"


def test_names_are_made_unique_and_escaped(browser: Browser, tmp_path: Path) -> None:
    odd = "<b>&\"'\N{CJK UNIFIED IDEOGRAPH-5C71} .[0]\n\\"
    folders = [tmp_path / "a/x/same", tmp_path / "b/x/same", tmp_path / odd]
    for folder in folders:
        make_run(folder, [trained(5), validated(5)], note=odd.encode("unicode_escape").hex())
    with report_page(browser, tmp_path, *folders) as page:
        assert [row[0] for row in rows_of_runs(page)][1:] == ["a/x/same", "b/x/same", odd]
        assert page.locator("b").count() == 0


def test_settings_are_compared_completely(browser: Browser, tmp_path: Path) -> None:
    """Even if too long for a table; and the string yes differs from true."""
    long = "/data/" + "x" * 300
    for name, end, verify in (("a", "one", "'yes'"), ("b", "two", "true")):
        make_run(tmp_path / name, [trained(5)], shards=f"{long}{end}{'y' * 300}", verify=verify, clip=1)
    with report_page(browser, tmp_path, tmp_path / "a", tmp_path / "b") as page:
        rows = {row[0]: row[1:] for row in table(page, "Settings that differ")}
        assert list(rows) == ["Setting", "\N{NOT EQUAL TO} shards", "\N{NOT EQUAL TO} verify"]
        assert all(len(text) < 210 for text in rows["\N{NOT EQUAL TO} shards"])


def test_damaged_samples_are_counted_once(browser: Browser, tmp_path: Path) -> None:
    """A resumed run logs damaged samples again."""
    damages = [{"event": "damaged", "step": step, "reason": f"a.tar: 00{step % 2}.png"} for step in (1, 2, 3)]
    with report_page(browser, tmp_path, make_run(tmp_path / "r", [*damages, trained(5)])) as page:
        assert "r: 2 damaged samples were replaced by others." in page.locator("#warnings li").all_inner_texts()


def test_runs_may_have_different_numbers_of_previews(browser: Browser, tmp_path: Path) -> None:
    for name, num_images in (("one", 1), ("three", 3), ("none", 0)):
        run = make_run(tmp_path / name, [trained(5), validated(5)], steps=5)
        images = np.random.default_rng(num_images).integers(0, 256, (max(num_images, 1), 3, 32, 32, 3), dtype=np.uint8)
        picture = grid([Row(list(row), "bicubic 1 dB   network 2 dB", "x.jpg") for row in images], TITLES)
        if not num_images:
            picture.info[GRID_TEXT] = json.dumps({"titles": TITLES, "rows": []})
        (run / "previews").mkdir()
        save_png(picture, run / "previews/step-000005.png", "trainer train")
    with report_page(browser, tmp_path, tmp_path / "none", tmp_path / "one", tmp_path / "three") as page:
        assert page.locator(".comparison .name").all_inner_texts() == ["one", "three", "three", "three"]
        assert "none/previews/step-000005.png: is damaged" in page.locator("details li").all_text_contents()[0]


def test_the_range_of_steps_ignores_omitted_runs(browser: Browser, tmp_path: Path) -> None:
    for number in range(25):
        make_run(tmp_path / f"r{number:02}", [trained(10), validated(10, 30 + number), trained(20)])
    make_run(tmp_path / "worst", [trained(5000), validated(5000, 20)])
    with report_page(browser, tmp_path, *runs_in(tmp_path)) as page:
        assert page.locator("#controls").get_attribute("data-max-step") == "20"


def test_controls_match_the_page_after_going_back(browser: Browser, page_file: Path) -> None:
    """Browsers restore the state of controls without notifying scripts."""
    with opened(browser, page_file, **WIDE) as page:
        page.get_by_role("checkbox", name="first").uncheck()
        page.get_by_label("Step", exact=True).press("Home")
        page.locator(".border").first.press("Home")
        page.goto("about:blank")
        page.go_back()
        page.evaluate("window.plotsDrawn.then(() => null)")
        assert page.get_by_role("checkbox", name="first").is_checked()
        assert page.locator(".border").first.input_value() == "33"
        assert page.locator(".steps output").inner_text() == "12"
        assert page.get_by_label("Step", exact=True).input_value() == "2"


def test_touching_a_plot_shows_the_tooltip(browser: Browser, page_file: Path) -> None:
    """At the first touch and after moves. Scrolling away hides the tooltip."""
    with opened(browser, page_file, **PHONE) as page:
        drawing = plot(page, "PSNR-Y").locator("svg")
        drawing.evaluate("drawing => drawing.scrollIntoView({behavior: 'instant', block: 'center'})")
        box, tooltip = drawing.bounding_box(), page.locator("#vg-tooltip-element")
        assert box
        finger = page.context.new_cdp_session(page)
        y = box["y"] + box["height"] / 2

        def touch(kind: str, share: float) -> None:
            at = [{"x": box["x"] + box["width"] * share, "y": y}] if kind != "touchEnd" else []
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

        touch("touchStart", 0.3)
        expect(tooltip.locator("tr").first).to_have_text(re.compile(r"Step\s*4"))
        for share in (0.4, 0.6, 0.8, 0.95):
            touch("touchMove", share)
        expect(tooltip.locator("tr").first).to_have_text(re.compile(r"Step\s*12"))
        touch("touchEnd", 0)
        page.mouse.wheel(0, 300)
        expect(tooltip).not_to_be_visible()


# ---- the verdict, the order of the runs, and their names


def verdict_of(page: Page) -> str:
    return str(page.locator(".verdict").inner_text())


def course(psnrs: list[float], wait: float = 0.001) -> list[dict[str, Any]]:
    """Return a journal with a validation each 100 steps."""
    steps = range(100, 100 * len(psnrs) + 1, 100)
    return [
        line
        for step, psnr in zip(steps, psnrs, strict=True)
        for line in (trained(step, data_wait=wait), validated(step, psnr))
    ]


@pytest.mark.parametrize(
    ("psnrs", "steps", "expected"),
    [
        (
            [29, 30, 30.5, 30.6],
            400,
            "It was still improving at the end, by 0.10 dB in the last quarter of its steps: more",
        ),
        ([29, 30, 30.5, 30.6], 900, "by 0.10 dB in the last quarter of its steps: it has steps left."),
        ([29, 30, 30.5, 30.51], 400, "It had levelled off: the last quarter of its steps gained less than 0.02 dB."),
        ([29, 30, 30.5, 30.25], 400, "Its last validation is 0.25 dB below its best one."),
        ([29, 30, 30.5], 300, "It has too few validations to tell whether it was still improving."),
    ],
)
def test_the_verdict_tells_whether_the_best_run_was_improving(
    browser: Browser, tmp_path: Path, psnrs: list[float], steps: int, expected: str
) -> None:
    with report_page(browser, tmp_path, make_run(tmp_path / "r", course(psnrs), steps=steps)) as page:
        assert expected in verdict_of(page)


def test_the_verdict_compares_the_best_run(browser: Browser, tmp_path: Path) -> None:
    """With bicubic and the run that follows, and names its data wait."""
    best = make_run(tmp_path / "best", course([28, 29, 29.5, 29.6], wait=0.25), steps=400)
    other = make_run(tmp_path / "other", course([28, 28.5, 28.6, 28.7]), steps=400)
    with report_page(browser, tmp_path, other, best) as page:
        text = verdict_of(page)
        start = "best has the highest PSNR-Y of 2 runs: 29.60 dB at step 400 of 400, 0.60 dB above bicubic (29.00 dB); "
        assert text.startswith(start + "other follows with 28.70 dB. ")
        assert (
            "It waited for data 25.00% of the training time, which more --workers or a faster disk may reduce." in text
        )
        assert text.endswith("There are no warnings.")
    with report_page(browser, tmp_path, other) as page:
        text = verdict_of(page)
        start = "other reaches a PSNR-Y of 28.70 dB at step 400 of 400, 0.30 dB below bicubic (29.00 dB). "
        assert text.startswith(start) and "0.10% of the training time, which is little." in text


@pytest.mark.parametrize(("psnr", "is_seen"), [(29.03, False), (28.91, False), (29.11, True), (28.89, True)])
def test_the_verdict_says_that_a_small_gain_cannot_be_seen(
    browser: Browser, tmp_path: Path, psnr: float, is_seen: bool
) -> None:
    with report_page(browser, tmp_path, make_run(tmp_path / "r", course([psnr]))) as page:
        remark = "" if is_seen else ", a difference that cannot be seen"
        assert f" bicubic (29.00 dB){remark}. " in verdict_of(page)


@pytest.mark.parametrize("psnrs", [[29.03], [29.03, 29.04]])
def test_the_axis_of_a_single_value_is_not_zoomed_to_it(browser: Browser, tmp_path: Path, psnrs: list[float]) -> None:
    with report_page(browser, tmp_path, make_run(tmp_path / "r", course(psnrs))) as page:
        for title in ("PSNR-Y", "PSNR-Y over training time"):
            labels = plot(page, title).locator(".role-axis-label").last.locator("text").all_text_contents()
            height = max(map(float, labels)) - min(map(float, labels))
            assert 0.3 < height < 1 if len(psnrs) == 1 else height < 0.1, labels


def test_the_verdict_counts_and_links_to_the_warnings(browser: Browser, tmp_path: Path) -> None:
    lines = [*course([29, 30]), {"event": "error", "step": 200, "message": "no space"}]
    with report_page(browser, tmp_path, make_run(tmp_path / "r", lines, steps=400)) as page:
        assert verdict_of(page).endswith("There is 1 warning.")
        page.locator(".verdict a").click()
        expect(page.locator("#warnings")).to_be_in_viewport()


def test_runs_are_ordered_by_result_and_short_ones_folded(browser: Browser, tmp_path: Path) -> None:
    """A run of few steps counts if it was validated repeatedly, and one of many if it was validated once."""
    make_run(tmp_path / "good", course([29] * 20 + [30]))
    make_run(tmp_path / "best", course([29] * 20 + [31]))
    make_run(tmp_path / "three-steps", [trained(3), validated(3, 20)])
    make_run(tmp_path / "unvalidated", [trained(2000)])
    make_run(tmp_path / "early", [trained(50), validated(40, 28), validated(50, 28)])
    make_run(tmp_path / "once", [trained(1500), validated(1500, 27)])
    with report_page(browser, tmp_path, *runs_in(tmp_path)) as page:
        assert [row[0] for row in table(page, "Runs")[1:]] == ["best", "good", "early", "once"]
        assert page.locator(".legend label").all_inner_texts() == ["best", "good", "early", "once"]
        assert plot(page, "Loss").locator(".mark-line path").count() == 4
        page.get_by_text("2 short runs are left out below").click()
        assert [row[0] for row in table(page, "Short runs")[1:]] == ["three-steps", "unvalidated"]
        shown = "Short runs have no validation, or a single one and less than 5% of the best run's steps."
        assert shown in page.locator("main").inner_text()


def test_runs_without_validation_are_compared_with_each_other(browser: Browser, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, [trained(step)]) for name, step in (("a", 5), ("b", 1000))]
    with report_page(browser, tmp_path, *runs) as page:
        assert [row[0] for row in table(page, "Runs")[1:]] == ["a", "b"]
        assert verdict_of(page).startswith("The 2 runs have no validation yet, so there is no result to judge.")


LONG = "lite-4x-an-experiment-with-a-long-name-"


@pytest.mark.parametrize(("device", "scrolls"), [({"viewport": {"width": 1400, "height": 1000}}, False), (PHONE, True)])
def test_the_table_of_runs_fits_a_wide_screen(
    browser: Browser, tmp_path: Path, device: dict[str, Any], scrolls: bool
) -> None:
    """On a phone it scrolls beside the names, which is visible and possible by keyboard. Names do not break."""
    for number in range(3):
        run = make_run(tmp_path / f"{LONG}{number}", course([29, 30 + number]), steps=100_000)
        (run / "plan.json").write_text('{"model": "compact_super_ultra", "steps": 100000}')
    with report_page(browser, tmp_path, *runs_in(tmp_path), **device) as page:
        region = page.get_by_role("region", name="Table: Runs", exact=True)
        assert region.evaluate("box => box.scrollWidth > box.clientWidth") is scrolls
        assert region.get_attribute("tabindex") == "0"
        names = page.locator(".run-name")
        assert names.all_text_contents()[:2] == ["lite-4x-…h-a-long-name-2", "lite-4x-…h-a-long-name-1"]
        assert set(names.evaluate_all("all => all.map((name) => name.getClientRects().length)")) <= {0, 1}
        assert names.first.get_attribute("title") == f"{LONG}2"
        shadows = region.evaluate("box => getComputedStyle(box).backgroundAttachment")
        assert shadows == "local, local, scroll, scroll"
        if scrolls:
            left = names.nth(1).bounding_box()
            region.evaluate("box => box.scrollTo(400, 0)")
            assert left and names.nth(1).bounding_box() == left, "the first column stays"


def test_short_names_stay_distinct() -> None:
    names = [f"{'a' * 30}{number}{'b' * 30}" for number in range(12)] + ["short"]
    assert len(set(shortened(names))) == 13 and shortened(names)[-1] == "short"
    assert shortened(["x" * 24, "x" * 25]) == ["x" * 24, f"{'x' * 8}…{'x' * 15}"]


@pytest.mark.parametrize(
    ("name", "path", "part"),
    [
        (
            "sky/a b.jpg [180, 0, 1080, 960]",
            "sky/a b.jpg",
            "From the photo's crop of 1,080 \N{MULTIPLICATION SIGN} 960 px, 180 px from the left and 0 px from the top",
        ),
        ("sky/[1, 2].jpg", "sky/[1, 2].jpg", ""),
        ("a.jpg [1, 2, 3]", "a.jpg [1, 2, 3]", ""),
    ],
)
def test_the_part_of_a_photo_is_in_words(name: str, path: str, part: str) -> None:
    assert sample_in_words(name) == (path, part)


def test_previews_say_which_part_of_the_photo_they_show(shared: Page) -> None:
    scene = shared.locator(".scene").first
    assert re.fullmatch(r"class\d/img\d+\.\w+", scene.locator("h3").inner_text())
    assert re.fullmatch(r"From the photo's crop of .* px from the top", scene.locator("h3 + p").inner_text())


def test_labels_of_baselines_are_outside_of_the_plots(shared: Page) -> None:
    """So that they do not overlap curves."""
    drawing = plot(shared, "PSNR-Y").locator("svg")
    label = drawing.get_by_text("bicubic").bounding_box()
    curves = drawing.locator(".mark-line path").all()
    assert label and all(label["y"] + label["height"] <= (one.bounding_box() or {"y": 0})["y"] for one in curves)


# ---- size


def test_the_size_of_the_page_is_bounded(browser: Browser, tmp_path: Path) -> None:
    """200,000 log lines in one run, and 60 previews with incompressible pixels in each of eight runs."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (8, 3, 3, 128, 128, 3), dtype=np.uint8)
    pictures = []
    for number, rows in enumerate(noise):
        pictures.append(tmp_path / f"{number}.png")
        picture = grid(
            [Row(list(row), "bicubic 1 dB   network 2 dB", f"{at}.jpg") for at, row in enumerate(rows)], TITLES
        )
        save_png(picture, pictures[-1], "trainer train")
    losses = rng.normal(1.0, 0.1, 199_940).tolist()
    for number in range(8):
        count = len(losses) if number == 0 else 3000
        every = count // 60
        lines = [trained(step, loss=losses[step - 1]) for step in range(1, count + 1)]
        steps = [every * (index + 1) for index in range(60)]
        run = make_run(tmp_path / f"run{number}", lines + [validated(step, 30 + step * 1e-6) for step in steps])
        (run / "previews").mkdir()
        for step in steps:
            (run / "previews" / f"step-{step:06d}.png").hardlink_to(pictures[(number + step // every) % 8])
    path = tmp_path / "r.html"
    report(*(tmp_path / f"run{number}" for number in range(8)), output=path)
    assert 5_000_000 < path.stat().st_size < MAX_PAGE_BYTES
    with opened(browser, path, **WIDE) as page:
        assert plot(page, "Loss").locator(".mark-line path").count() == 8
        assert "in bands from their minimum to maximum" in plot(page, "Loss").inner_text()
        assert page.locator(".plot tbody").first.locator("tr").count() <= 200
        assert max(plot.locator("tbody tr").count() for plot in page.locator(".plot").all()) <= 200
        page.get_by_text("Omitted previews").click()
        text = page.locator("main").inner_text()
        assert re.search(r"run7: [1-9]\d? of 60 previews are shown", text)
        assert "run0: only the first of 3 images of each preview, to show more steps" in text
        stops = [int(stop) for stop in (page.locator("#step").get_attribute("data-stops") or "").split()]
        assert 199_920 in stops and 3332 in stops, "the last and the first of the long run"


def test_only_the_best_of_many_runs_are_plotted(browser: Browser, tmp_path: Path) -> None:
    for number in range(30):
        make_run(tmp_path / f"r{number:02}", [trained(5), validated(5, 30 + number % 7)])
    with report_page(browser, tmp_path, *runs_in(tmp_path)) as page:
        assert len(rows_of_runs(page)) == 31
        assert plot(page, "Loss").locator(".mark-line path").count() == 24
        text = page.locator("main").inner_text()
        assert "the 24 best runs; the table has all runs. Omitted below: r29, r00, r07," in text


@pytest.mark.parametrize("device", [WIDE, PHONE])
def test_the_tooltip_of_many_runs_fits_the_window(browser: Browser, tmp_path: Path, device: dict[str, Any]) -> None:
    for number in range(24):
        lines = [line for step in (5, 10) for line in (trained(step), validated(step, 30 + number % 7))]
        make_run(tmp_path / f"a-run-with-a-rather-long-name-{number:02}", lines)
    with report_page(browser, tmp_path, *runs_in(tmp_path), **device) as page:
        drawing = plot(page, "PSNR-Y").locator("svg")
        drawing.evaluate("drawing => drawing.scrollIntoView({behavior: 'instant', block: 'center'})")
        box = None
        for x in itertools.islice(itertools.cycle((200, 201)), 100):  # a late scroll event may hide it
            drawing.hover(position={"x": x, "y": 100})
            if box := page.evaluate("document.querySelector('#vg-tooltip-element.visible')?.getBoundingClientRect()"):
                break
        assert box and box["x"] >= 0 and box["y"] >= 0
        assert box["x"] + box["width"] <= device["viewport"]["width"]
        assert box["y"] + box["height"] <= device["viewport"]["height"]
        assert "a-run-wi…er-long-name-07" in page.locator("#vg-tooltip-element").inner_text()


def test_runs_have_distinct_styles() -> None:
    looks = [style(number) for number in range(64)]
    assert len({(colour, tuple(dashes)) for colour, dashes in looks}) == 64
    assert len({colour for colour, _ in looks[:8]}) == len({tuple(dashes) for _, dashes in looks[:8]}) == 8


# ---- sets


def on_sets(step: int, psnrs: dict[str, float], lpips: float) -> dict[str, Any]:
    """A `val` line with further sets, and LPIPS on all of them."""

    def metrics(psnr_y: float) -> dict[str, Any]:
        line = {**validated(step, psnr_y), "lpips": lpips, "bicubic_lpips": 0.4}
        return {name: value for name, value in line.items() if name not in ("event", "step")}

    others = {name: metrics(psnr) for name, psnr in psnrs.items() if name != "val"}
    return {"event": "val", "step": step, **metrics(psnrs["val"]), "sets": others}


def test_sets_have_a_table_and_curves(browser: Browser, tmp_path: Path) -> None:
    """LPIPS is better if lower, and not every run needs to have every set."""
    lines = [on_sets(5, {"val": 30, "Set5": 28.5, "b": 25}, 0.3), on_sets(10, {"val": 31, "Set5": 28, "b": 26}, 0.25)]
    one = make_run(tmp_path / "one", lines, val="[Set5=photos/Set5, b=photos/b]")
    lines = [on_sets(5, {"val": 29, "Set5": 29}, 0.2), on_sets(10, {"val": 32, "Set5": 27}, 0.3)]
    other = make_run(tmp_path / "other", lines)
    (other / "plan.json").write_text('{"best_by": "lpips@Set5"}')
    with report_page(browser, tmp_path, one, other) as page:
        columns, *rows = table(page, "Best values by set")
        assert columns == [
            *(
                "Set",
                "Run",
                "Best PSNR-Y",
                "at step",
                "Over bicubic",
                "Best SSIM-Y",
                "at step",
                "Best LPIPS",
                "at step",
            ),
        ]
        assert rows == [
            ["val", "other", "32.00 dB", "10", "+3.00 dB", "0.8000", "5", "0.2000", "5"],
            ["val", "one", "31.00 dB", "10", "+2.00 dB", "0.8000", "5", "0.2500", "10"],
            ["Set5", "other", "29.00 dB", "5", "+0.00 dB", "0.8000", "5", "0.2000", "5"],
            ["Set5", "one", "28.50 dB", "5", "-0.50 dB", "0.8000", "5", "0.2500", "10"],
            ["b", "one", "26.00 dB", "10", "-3.00 dB", "0.8000", "5", "0.2500", "10"],
        ]
        best = page.get_by_role("region", name="Table: Best values by set").locator("tr.best").all_inner_texts()
        assert [text.split("\t")[:2] for text in best] == [["val", "other"], ["Set5", "other"]]
        for title in ("PSNR-Y on Set5", "PSNR-Y on b", "LPIPS on val"):
            plot(page, title).get_by_text("Figures").click()
        assert table(page, "PSNR-Y on Set5")[1:] == [["5", "29.00 dB", "28.50 dB"], ["10", "27.00 dB", "28.00 dB"]]
        assert table(page, "PSNR-Y on b")[1:] == [["5", NONE, "25.00 dB"], ["10", NONE, "26.00 dB"]]
        assert table(page, "LPIPS on val")[2] == ["10", "0.3000", "0.2500"]
        expect(plot(page, "LPIPS on Set5").get_by_text("bicubic 0.4000")).to_be_visible()
        assert plot(page, "PSNR-Y on val").count() == 0, "it is the plot PSNR-Y"
        expect(page.get_by_text("other: best.pth is chosen by LPIPS on Set5: 0.2000 at step 5.")).to_be_visible()
        assert accessibility_violations(page) == ""
    with report_page(browser, tmp_path, one) as page:
        assert [row[0] for row in table(page, "Best values by set")] == ["Set", "val", "Set5", "b"]
        assert ["val", "Set5=photos/Set5, b=photos/b"] in table(page, "Settings")


def test_sets_of_one_name_with_different_images_are_compared_by_gain(browser: Browser, tmp_path: Path) -> None:
    """The further set of one run may also be the main set of another, which has no validation split."""
    easy, hard = on_sets(5, {"val": 30, "x": 35}, 0.3), on_sets(5, {"val": 30, "x": 28}, 0.3)
    easy["sets"]["x"]["bicubic_psnr_y"], hard["sets"]["x"]["bicubic_psnr_y"] = 36, 27
    runs = [make_run(tmp_path / "easy", [easy]), make_run(tmp_path / "hard", [hard])]
    runs.append(make_run(tmp_path / "main", [{**validated(5, 31), "set": "x"}]))
    with report_page(browser, tmp_path, *runs[:2]) as page:
        best = page.get_by_role("region", name="Table: Best values by set").locator("tr.best").all_inner_texts()
        assert [text.split("\t")[:2] for text in best] == [["val", "easy"], ["x", "hard"]]
        expect(page.get_by_text("The runs have different images of x: the PSNR of bicubic differs.")).to_be_visible()
    with report_page(browser, tmp_path, *runs) as page:
        plot(page, "PSNR-Y on x").get_by_text("Figures").click()
        assert table(page, "PSNR-Y on x")[1:] == [["5", "31.00 dB", "35.00 dB", "28.00 dB"]]


def test_one_set_has_no_table_of_sets(shared: Page) -> None:
    assert shared.get_by_role("heading", name="Sets", exact=True).count() == 0


def test_unusable_values_of_sets_are_ignored(browser: Browser, tmp_path: Path) -> None:
    many = {f"s{number}": {"psnr_y": 20 + number} for number in range(100)}
    lines = [
        {**validated(5), "set": 3, "sets": [1]},
        {**validated(6), "set": "main", "sets": {"a": 4, "b" * 65: {"psnr_y": 1}, "c": {"psnr_y": "x", "lpips": None}}},
        {**validated(7), "set": "main", "sets": many},
    ]
    with report_page(browser, tmp_path, make_run(tmp_path / "r", lines)) as page:
        rows = table(page, "Best values by set")
        assert [row[0] for row in rows[1:4]] == ["main", "c", "s0"] and len(rows) == 1 + 32
        assert rows[1][1:4] == ["30.00 dB", "6", "+1.00 dB"] and rows[2][1:4] == [NONE, NONE, NONE]
        assert plot(page, "PSNR-Y on c").count() == 0 and plot(page, "PSNR-Y on s0").count() == 1


# ---- single losses and adversarial training


def on_losses(step: int, losses: Any, real: Any = None, fake: Any = None) -> dict[str, Any]:
    """A `train` line with single losses and, in adversarial training, the discriminator's scores."""
    scores = {} if real is None else {"scores": {"real": real, "generated": fake}}
    return {**trained(step), "losses": losses, **scores}


def test_single_losses_and_scores_have_plots(browser: Browser, tmp_path: Path) -> None:
    """Losses may start and end at any step, and not every run needs to have them."""
    lines = [on_losses(5, {"l1": 0.02, "fft": 1.5}), on_losses(10, {"l1": 0.01})]
    gan = {"l1": 0.03, "perceptual": 0.9, "gan": 0.5, "discriminator": 1.25}
    lines += [on_losses(step, gan, 0.75, 0.25) for step in range(15, 265, 5)]
    both, old = make_run(tmp_path / "both", lines), make_run(tmp_path / "old", [trained(5), trained(300)])
    earlier = {"real_score": 1.5, "fake_score": -0.5}  # names of the version that started the run
    hinge = make_run(tmp_path / "hinge", [{**on_losses(5, gan | {"gan": 0.5}), "scores": earlier}])
    with open(hinge / "journal.jsonl", "a") as file:
        file.write(json.dumps(on_losses(10, gan | {"gan": -0.25}, 1.5, 0.25)) + "\n")
    with report_page(browser, tmp_path, old, both, hinge) as page:
        assert page.locator(".plot h3").all_inner_texts() == [
            *("Loss", "Loss: l1", "Loss: fft", "Loss: perceptual", "Adversarial loss", "Discriminator loss"),
            *("Discriminator scores", "Discriminator loss / adversarial loss"),
            *("Learning rate", "Patches per second", "Waiting for data"),
        ]
        assert "weighted sum of the single losses" in plot(page, "Loss").inner_text()
        for title in ("Loss: fft", "Adversarial loss", "Discriminator scores", "Discriminator loss / adversarial loss"):
            plot(page, title).get_by_text("Figures").click()
        assert table(page, "Loss: fft") == [["Step", "old", "both", "hinge"], ["5", NONE, "1.5", NONE]]
        assert table(page, "Adversarial loss")[1:4] == [
            *(["5", NONE, NONE, "0.5"], ["10", NONE, NONE, "-0.25"], ["15", NONE, "0.5", NONE])
        ]
        columns, *rows = table(page, "Discriminator scores")
        assert columns[1:5] == ["old, real", "old, generated", "both, real", "both, generated"]
        assert rows[0] == ["5", NONE, NONE, NONE, NONE, "1.500", "-0.500"]
        assert rows[1] == ["10", NONE, NONE, NONE, NONE, "1.500", "0.250"]
        assert rows[2] == ["15", NONE, NONE, "0.750", "0.250", NONE, NONE]
        # A ratio to a loss that changes its sign would mean nothing.
        rows = table(page, "Discriminator loss / adversarial loss")[1:]
        assert rows == [[str(step), NONE, "2.5", NONE] for step in range(15, 265, 5)]
        lines_of_scores = plot(page, "Discriminator scores").locator(".mark-line path").all()
        looks = {(one.get_attribute("stroke"), one.get_attribute("stroke-width")) for one in lines_of_scores}
        assert len(looks) == len(lines_of_scores) == 4, "two lines of different width for each run with a discriminator"
        assert accessibility_violations(page) == ""
        plot(page, "Discriminator scores").locator(".drawing svg").hover()
        cells = page.locator("#vg-tooltip-element.visible td").all_inner_texts()
        assert cells[3:] == [NONE, "both", "real 0.750, generated 0.250", "hinge", "real 1.500, generated 0.250 at 10"]


def x_ranges(page: Page) -> dict[str, list[float]]:
    """Return the range of the x axis of each plot over the steps, by title."""
    ranges = page.evaluate("async () => (await window.plotsDrawn).map((view) => view.scale('x').domain())")
    titles = page.locator(".plot h3").all_inner_texts()
    found = dict(zip(titles, ranges, strict=True))
    return {title: one for title, one in found.items() if "time" not in title}


def test_plots_of_late_losses_have_the_steps_of_the_run(browser: Browser, tmp_path: Path) -> None:
    """And those of losses that end early."""
    gan = {"gan": 0.5, "discriminator": 1.2}
    lines = [on_losses(step, {"l1": 0.02, "fft": 1.0}) for step in range(10, 700, 10)]
    lines += [on_losses(step, {"l1": 0.02, **gan}, 0.7, 0.3) for step in range(700, 1001, 10)]
    runs = make_run(tmp_path / "long", lines), make_run(tmp_path / "short", [on_losses(800, {"l1": 0.02})])
    with report_page(browser, tmp_path, *runs) as page:
        found = x_ranges(page)
        assert {"Loss", "Loss: fft", "Adversarial loss", "Discriminator scores", "Learning rate"} <= found.keys()
        assert list(found.values()) == len(found) * [[0, 1000]]
        page.get_by_role("combobox", name="Steps").select_option("last 50%")
        page.wait_for_selector('#controls[data-applied="[[],500]"]')
        assert list(x_ranges(page).values()) == len(found) * [[500, 1000]]


def test_a_single_loss_of_either_sign_is_drawn(browser: Browser, tmp_path: Path) -> None:
    """A logarithmic axis for the means would not have the band, which reaches below 0."""
    lines = [on_losses(step, {"gan": 0.1 + step / 100 + (-1) ** step}) for step in range(4, 1000)]
    with report_page(browser, tmp_path, make_run(tmp_path / "r", lines)) as page:
        drawing = plot(page, "Adversarial loss").locator("svg")
        assert drawing.get_by_text("loss", exact=True).count() == 1
        assert "NaN" not in drawing.inner_html()


def test_unusable_single_losses_are_ignored(browser: Browser, tmp_path: Path) -> None:
    odd = "<b>&\"'\\ .[0]\n"
    values = {"x": "1", "y": None, "z": True, "w": 1e301, "v": math.nan, "b" * 65: 1.0}
    lines = [
        on_losses(5, [1], 0.5, None),
        on_losses(6, {**values, odd: 1e299, "gan": 5e-324, "discriminator": 1e299}, "1", 0.5),
        on_losses(7, {f"s{number}": number for number in range(100)}, math.inf, 0.5),
        {**trained(8), "losses": {"l1": None}, "scores": 3},
    ]
    runs = [make_run(tmp_path / "a", lines)]
    runs.append(make_run(tmp_path / "b", [on_losses(5, {f"t{number}": 1 for number in range(32)})]))
    with report_page(browser, tmp_path, *runs) as page:
        titles = [title for title in page.locator(".plot h3").all_text_contents() if "oss" in title][1:]
        assert titles[:3] == [f"Loss: {odd}", "Loss: s0", "Loss: s1"]
        assert len(titles) == 32 + 2 and titles[-3:] == ["Loss: t1", "Adversarial loss", "Discriminator loss"]
        assert plot(page, "Discriminator scores").count() == 0 and page.locator("b").count() == 0


def test_many_single_losses_of_many_runs_fit_the_page(tmp_path: Path) -> None:
    losses = {f"loss{number}": 1 / 3 + number for number in range(20)}
    for number in range(24):
        make_run(tmp_path / f"r{number}", [on_losses(2 * step + number % 2, losses, 1, 0) for step in range(150)])
    report(*runs_in(tmp_path), output=tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size < MAX_PAGE_BYTES


def test_collapses_are_listed(browser: Browser, tmp_path: Path) -> None:
    """Journals of earlier versions may have several."""
    line = {"event": "collapse", "message": "the discriminator <wins>, e.g. always" + "." * 2000}
    lines = [{**line, "step": 900 + step} for step in range(10)] + [{"event": "collapse", "step": 950}]
    with report_page(browser, tmp_path, make_run(tmp_path / "r", [trained(800), *lines])) as page:
        notes = [note for note in page.locator("#warnings li").all_inner_texts() if note.startswith("r:")]
        assert len(notes) == 9 and all(len(note) < 1100 for note in notes)
        assert notes[0].startswith("r: step 900: the discriminator <wins>, e.g. always.")
        assert notes[-1] == "r: 3 further warnings of a collapse."


# ---- stores and errors


def test_runs_in_a_store(s3: Bucket, browser: Browser, runs: Path, tmp_path: Path) -> None:
    address = parse_address(f"{s3.address}/runs/far")
    for file in (runs / "first").rglob("*"):
        if file.is_file() and file.suffix in (".yaml", ".json", ".jsonl", ".png"):
            write_bytes(address / file.relative_to(runs / "first").as_posix(), file.read_bytes())
    s3.proxy.break_next("500", method="GET", key="*journal.jsonl")
    with report_page(browser, tmp_path, address, runs / "second") as page:
        assert {row[0] for row in rows_of_runs(page)} == {"Run", "far", "second"}
        page.get_by_text("More about the runs").click()
        folders = {row[0]: row[-1] for row in table(page, "More about the runs")}
        assert folders["far"] == str(address)
        assert page.locator(".comparison").count() == 6
    result = report(f"{s3.address}/runs", output=tmp_path / "other.html", expect=2)
    assert result.err == (
        f"Error: {s3.address}/runs is not a run: it has no journal.jsonl; runs in it: {s3.address}/runs/far\n"
    )


def test_a_link_to_a_run_keeps_its_name(tmp_path: Path) -> None:
    make_run(tmp_path / "real", [trained(5)])
    (tmp_path / "latest").symlink_to("real")
    result = report(tmp_path / "latest", output=tmp_path / "r.html")
    assert result.out.endswith("B, 1 run: latest\n")


def test_help_of_report_has_an_example() -> None:
    result = trainer("report", "--help")
    assert result.code == 0
    assert "python -m trainer report runs/lite-4x runs/lite-4x-2 -o report.html" in result.out
    result = trainer("report")
    assert result.code == 2
    assert "Missing argument 'RUNS...'" in result.err


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("runs", "{0}/runs is not a run: it has no journal.jsonl; runs in it: {0}/runs/first, {0}/runs/second"),
        ("runs/third", "{0}/runs/third is not a folder; runs in {0}/runs: first, second"),
        (
            "empty/none",
            "{0}/empty/none is not a folder; pass the folder of a run, e.g. runs/lite-4x",
        ),
    ],
)
def test_folders_that_are_not_runs_are_refused(runs: Path, tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "runs").symlink_to(runs)
    result = report(tmp_path / folder, output=tmp_path / "r.html", expect=2)
    assert result.err == f"Error: {message.format(tmp_path)}\n"
    assert not (tmp_path / "r.html").exists()


def test_a_link_loop_is_reported(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    result = report(tmp_path / "loop", output=tmp_path / "r.html", expect=1)
    assert result.err.startswith(f"Error: cannot list {tmp_path}/loop: Too many levels of symbolic links")


@pytest.mark.parametrize("steps", ["9" * 5000, '"' + "9" * 5000 + '"', "true", "-1", "[1]"])
def test_invalid_numbers_of_steps_are_ignored(tmp_path: Path, steps: str) -> None:
    run = make_run(tmp_path / "r", [trained(5)])
    (run / "plan.json").write_text(f'{{"steps": {steps}}}')
    report(run, output=tmp_path / "r.html")
    content = (tmp_path / "r.html").read_text()
    assert (
        re.search("<dt>State</dt><dd>unknown</dd>.*<dt>Steps</dt><dd>5</dd>", content, re.DOTALL)
        and "9" * 300 not in content
    )


def test_passing_a_run_twice_is_refused(runs: Path, tmp_path: Path) -> None:
    result = report(runs / "first", runs / "second/../first", output=tmp_path / "r.html", expect=2)
    assert result.err == f"Error: {runs / 'second/../first'} was passed twice; pass each run once\n"


def test_unwritable_output_is_reported(runs: Path, tmp_path: Path) -> None:
    for folder, instead in ((tmp_path, tmp_path / "report.html"), (".", "report.html")):
        result = trainer("report", runs / "first", "-o", folder)
        assert result.code == 2
        assert f"{Path(folder)} is a folder; pass the file to write, e.g. {instead}\n" in result.err
    (tmp_path / "file").write_text("")
    result = report(runs / "first", output=tmp_path / "file/r.html", expect=1)
    assert f"Error: cannot write {tmp_path / 'file/r.html'}: " in result.err


def test_report_refuses_several_processes(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    result = report(runs / "first", output=tmp_path / "r.html", expect=2)
    assert result.err == "Error: report runs in a single process; start it without torchrun\n"


REPORT_WITHOUT_PYTORCH = """
    import sys
    sys.modules["torch"] = None  # an import of it raises ModuleNotFoundError
    import trainer.report.page
    from trainer.cli import main
    main(["report", sys.argv[1]])
"""


def test_report_does_not_import_pytorch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(REPORT_WITHOUT_PYTORCH), tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 2 and f"Error: {tmp_path} is not a run" in result.stderr


# ---- properties


@given(
    jumps=st.lists(st.integers(1, 50), min_size=1, max_size=300),
    most=st.integers(2, 40),
    widen=st.integers(0, 6),
    data=st.data(),
)
def test_thinning_keeps_the_ends_the_extremes_and_the_mean(
    jumps: list[int], most: int, widen: int, data: st.DataObject
) -> None:
    steps = np.cumsum(jumps).tolist()
    values = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=len(steps), max_size=len(steps)))
    curve = Thinned(("a", "b"), most)
    cut = data.draw(st.integers(0, len(steps)))
    for part in (slice(0, cut), slice(cut, None)):
        curve.add(steps[part], [[value, math.nan] for value in values[part]])
    assert curve.points("b") == []
    width = curve.width << widen
    points = curve.points("a", width)
    assert len(curve.points("a")) <= most + 1
    assert (points[0].first, points[-1].last) == (steps[0], steps[-1])
    assert sum(point.num for point in points) == len(steps)
    assert min(point.low for point in points) == min(values)
    assert max(point.high for point in points) == max(values)
    for point in points:
        inside = [value for step, value in zip(steps, values, strict=True) if point.first <= step <= point.last]
        assert (point.num, point.low, point.high) == (len(inside), min(inside), max(inside))
        assert point.mean == pytest.approx(np.mean(inside), rel=1e-9, abs=1e-6)
        assert point.first // width == point.last // width


@given(steps=st.lists(st.integers(0, 10**9), unique=True, max_size=60), data=st.data())
def test_by_importance_starts_with_last_first_and_best(steps: list[int], data: st.DataObject) -> None:
    best = data.draw(st.sampled_from(steps)) if steps else 0
    order = by_importance(sorted(steps), best)
    assert sorted(order) == sorted(steps)
    if steps:
        first = list(dict.fromkeys([max(steps), min(steps), best]))
        assert order[: len(first)] == first


def test_by_importance_spreads_previews_logarithmically() -> None:
    assert by_importance([100, 200, 400, 800, 1600, 3200, 6400], 6400)[:4] == [6400, 100, 800, 3200]
