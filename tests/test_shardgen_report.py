"""`shardgen report`: its page in a real browser."""

import os
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import DEVICES, WIDE, accessibility_violations, opened
from helpers import contract_files, generate, make_photo, make_photos, run_cli
from PIL import Image
from playwright.sync_api import Browser, Page

from shardgen.report.extremes import extremes
from shardgen.report.gallery import gallery, select_representative
from shardgen.report.plots import histogram
from shardgen.report.survey import survey
from shardgen.report.text import distinct, short
from srshards.format import dump_json, load_json
from srshards.page.render import MAX_PAGE_BYTES
from srshards.shards.stored_samples import open_manifest, stored_samples
from srshards.shards.tar_index import load_index
from tests.drill.s3_server import Bucket

ODD = tuple(map(os.fsdecode, (b"\xe9t\xe9.jpg", b"two\nlines.jpg", b"#1.jpg", b'"a".jpg', b" b&.jpg", b"<b>bold.jpg")))


@pytest.fixture(scope="module")
def odd_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 ordinary photos and candidates for exclusion: flat with unusual names, dark, duplicated, broken."""
    root = make_photos(tmp_path_factory.mktemp("photos"), 20)
    for number, name in enumerate(ODD):
        Image.new("RGB", (90, 90), (40 * number + 20,) * 3).save(str(root / "class0" / name), "PNG")
    dark = make_photo(90, 120, seed=77) // 12
    Image.fromarray(dark).save(root / "class1" / "night.png")
    checks = np.repeat(np.indices((90, 90)).sum(axis=0)[..., None] % 2 * 255, 3, axis=2).astype(np.uint8)
    Image.fromarray(checks).save(root / "class1" / "checks.png")
    with Image.open(root / "class1" / "img1.jpg") as image:
        image.resize((100, 75)).save(root / "class0" / "img1_small.jpg", quality=60)
    (root / "class2" / "broken.jpg").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def odd_shards(odd_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("shards")
    generate(odd_photos, output, "-s", 2, 4, "--shard-bytes", "100KB")
    return output


@pytest.fixture(scope="module")
def page_file(odd_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    result = run_cli("report", odd_shards, "-o", path)
    assert result.returncode == 0, result.stderr
    assert "58 of 58 samples measured in" in result.stdout and "58/58 samples" in result.stderr
    return path


def report(shards: object, output: Path, *args: object, expect: int = 0) -> str:
    """Run `report` and return its output: stderr if `expect` is an error code, else stdout."""
    result = run_cli("report", shards, "-o", output, *args)
    assert result.returncode == expect, result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    return result.stderr if expect else result.stdout


def unfold(page: Page) -> None:
    """Show all rows of all lists."""
    folded = page.locator("button.fold[aria-expanded=false]:not([hidden])")
    folded.evaluate_all("buttons => buttons.forEach((button) => button.click())")


def cards(page: Page, section: str) -> list[str]:
    """Return the names and captions of a list, with all of its rows."""
    unfold(page)
    return page.locator(f"section[aria-labelledby={section}] .photo").all_inner_texts()


def ticked(page: Page) -> int:
    return page.locator("input[data-photo]:checked").count()


# ---- content of the page


@DEVICES
def test_report_has_no_accessibility_violations(
    browser: Browser, odd_shards: Path, tmp_path: Path, scheme: str, device: dict
) -> None:
    report(odd_shards / "scale_4x", tmp_path / "r.html")
    with opened(browser, tmp_path / "r.html", color_scheme=scheme, **device) as page:
        assert page.locator(".groups fieldset").count() and page.locator(".comparison").count()
        page.locator("input[data-photo]").first.click()
        assert accessibility_violations(page) == ""
        assert page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]


def test_outliers_are_listed_first(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **WIDE) as page:
        flat = cards(page, "flattest")
        assert all("class0/" in text and "100% flat" in text for text in flat[: len(ODD)])
        assert "\\xe9" not in page.locator("#flattest-list").inner_text()
        assert "class0/two\\nlines.jpg" in page.locator("#flattest-list").inner_text()
        assert "class0/<b>bold.jpg" in page.locator("#flattest-list").inner_text()
        (night,) = page.locator(".photo").filter(has_text="class1/night.png").all_inner_texts()
        assert "sharpness" in night and "brightness 0.0" in night, "all reasons, in the list of the first"
        (checks,) = page.locator(".photo").filter(has_text="class1/checks.png").all_inner_texts()
        assert re.search(r"aliasing \d+\.\d levels at 4", checks)
        alike = page.get_by_role("group").filter(has_text="img1_small.jpg")
        assert "2 photos, " in alike.locator("legend").inner_text()
        names = alike.locator(".photo").all_inner_texts()
        assert "class1/img1.jpg" in names[0] and "90 \N{MULTIPLICATION SIGN} 90 px" in names[0]
        assert "class0/img1_small.jpg" in names[1]


def test_darkest_and_brightest_photos_are_disjoint(browser: Browser, tmp_path: Path) -> None:
    generate(make_photos(tmp_path / "photos", 4), tmp_path / "a")
    report(tmp_path / "a", tmp_path / "r.html")
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        unfold(page)
        captions = page.locator(".photo .faint").all_inner_texts()
        assert sum(text.count("brightness") for text in captions) == len(captions) == 4


def test_settings_plots_failures_and_last_run_are_shown(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **WIDE) as page:
        assert page.title().startswith("Shards: ")
        page.get_by_text("Settings", exact=True).click()
        text = page.locator("body").inner_text()
        for word in ("samples\n58", "PSNR of up, 2\N{MULTIPLICATION SIGN}", "hr size", "cubic", "train samples"):
            assert word in text, word
        assert "29 of 29 samples were measured" in text
        for title in ("Samples per class", "Brightness", "Sharpness"):
            assert page.get_by_role("heading", name=title, exact=True).count() == 1, title
        for title in ("PSNR of up", "PSNR of up by class", "Aliasing"):
            assert page.get_by_role("heading", name=title, exact=True).count() == 2, title
        assert page.locator(".drawing[data-drawn] svg").count() == 10
        # three classes in train and in val
        bars = page.locator(".drawing").first.locator("path[aria-roledescription=bar]")
        assert bars.count() == 6
        assert "30 photos in" in text.split("The last run of generate")[1]
        failures = page.get_by_role("region", name="Table: photos without a sample")
        page.get_by_text("Which photos").last.click()
        assert failures.inner_text().split("\n")[-1].startswith("class2/broken.jpg\tempty file")
        page.locator(".plot summary").nth(1).click()
        counts = page.locator(".plot").nth(1).locator("tbody td").all_inner_texts()
        assert sum(map(int, counts)) == int(page.locator(".plot").nth(1).inner_text().split(" over ")[1].split()[0])


def test_triplet_is_compared_and_magnified_with_its_facts(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **WIDE) as page:
        unfold(page)
        gallery_of_4 = page.locator("#gallery-4-list")
        assert gallery_of_4.locator(".comparison").count() == 12
        figure = gallery_of_4.locator(".comparison").first
        assert figure.locator(".tag").all_inner_texts() == ["HR", "LR", "up"]
        box = figure.locator(".stage").bounding_box()
        figure.scroll_into_view_if_needed()
        box = figure.locator(".stage").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
        page.mouse.up()
        cut = figure.locator(".stage").evaluate("stage => Number(stage.style.getPropertyValue('--cut1'))")
        assert cut == pytest.approx(50, abs=3)
        psnrs = [
            float(text.split(" dB")[0].split()[-1].replace("\N{INFINITY}", "inf"))
            for text in gallery_of_4.locator("figcaption").all_inner_texts()
        ]
        assert [one for one in psnrs if one != float("inf")] == sorted(one for one in psnrs if one != float("inf"))
        figure.get_by_role("button", name="Magnify").click()
        facts = page.locator("dialog dl.facts").inner_text()
        for word in ("photo\n", "class, split", "sample\n", "PSNR of up", "LR method\ncubic", "aliasing\n"):
            assert word in facts, word


def test_equal_shards_give_equal_pages(odd_shards: Path, page_file: Path, tmp_path: Path) -> None:
    report(odd_shards, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page_file.read_bytes()


# ---- excluding photos


def test_photo_is_selected_by_keyboard_and_pointer(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, **WIDE) as page:
        count = page.locator(".basket output")
        name = "Exclude class1/night.png"
        unfold(page)
        box = page.get_by_role("checkbox", name=name)
        assert box.count() == 1 and count.inner_text() == "0 photos to exclude"
        box.focus()
        page.keyboard.press("Space")
        assert ticked(page) == 1 and count.inner_text() == "1 photo to exclude"
        box.click()
        assert ticked(page) == 0
        group = page.get_by_role("group").filter(has_text="img1_small.jpg")
        group.get_by_role("button", name="All but the first").click()
        assert group.locator("input").evaluate_all("all => all.map(box => box.checked)") == [False, True]
        assert count.inner_text() == "1 photo to exclude"
        page.get_by_role("button", name="Clear").click()
        assert ticked(page) == 0


def test_saved_list_excludes_the_selected_photos(
    browser: Browser, page_file: Path, odd_photos: Path, odd_shards: Path, tmp_path: Path
) -> None:
    with opened(browser, page_file, **WIDE) as page:
        unfold(page)
        for box in page.locator("section[aria-labelledby=flattest] input").all()[: len(ODD)]:
            box.click()
        unfold(page)
        page.get_by_role("checkbox", name="Exclude class1/night.png").click()
        assert page.locator(".basket output").inner_text() == f"{len(ODD) + 1} photos to exclude"
        with page.expect_download() as download:
            page.get_by_role("button", name="Save exclude.txt").click()
        assert download.value.suggested_filename == "exclude.txt"
        saved = tmp_path / "exclude.txt"
        download.value.save_as(saved)
        # Without clipboard access, the text is shown and selected.
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')) }")
        page.locator("[data-list=copy]").click()
        page.wait_for_function("document.activeElement.matches('.basket textarea')")
        assert page.evaluate("getSelection().toString() || document.activeElement.value") == saved.read_text()
    assert saved.read_text().startswith("# Photos to exclude")
    result = generate(odd_photos, tmp_path / "a", "-s", 2, 4, "--shard-bytes", "100KB", "--exclude", saved)
    assert f"Exclude {len(ODD) + 1} photos" in result.stdout and "not found in the input" not in result.stdout
    remaining = Path(shutil.copytree(odd_photos, tmp_path / "left"))
    for name in (*(f"class0/{name}" for name in ODD), "class1/night.png"):
        (remaining / name).unlink()
    generate(remaining, tmp_path / "b", "-s", 2, 4, "--shard-bytes", "100KB")
    assert contract_files(tmp_path / "a") == contract_files(tmp_path / "b")
    assert "<code>--exclude</code> left out 7 photos" in report_html(tmp_path / "a", tmp_path)


def report_html(shards: Path, tmp_path: Path) -> str:
    report(shards, tmp_path / "r.html")
    return (tmp_path / "r.html").read_text()


# ---- other kinds of shards


def test_report_supports_recipes_and_shards_without_up(browser: Browser, photos: Path, tmp_path: Path) -> None:
    args = ("--degradation", "bsrgan-light", "--variants", 2, "--no-up", "--sample", 0.4)
    generate(photos, tmp_path / "shards", "-s", 4, *args)
    report(tmp_path / "shards" / "scale_4x", tmp_path / "r.html")
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        assert (
            "Not measured: these LR images are degraded by a recipe"
            in page.locator("section[aria-labelledby=aliased]").inner_text()
        )
        page.get_by_text("Settings", exact=True).click()
        assert "bsrgan-light: " in page.locator("dl.facts").first.inner_text()
        unfold(page)
        figure = page.locator(".comparison").nth(1)
        assert figure.locator(".tag").all_inner_texts() == ["HR", "LR"]
        assert page.get_by_role("heading", name="PSNR of up", exact=True).count() == 1
        figure.get_by_role("button", name="Magnify").click()
        facts = page.locator("dialog dl.facts").inner_text()
        assert "lr\n" in facts and "jpeg quality" in facts


def test_tiles_of_a_photo_are_listed_once(browser: Browser, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 4, size=(160, 160))
    Image.new("RGB", (192, 192), (9, 9, 9)).save(photos / "class0" / "flat.png")
    half = make_photo(64, 128, seed=9)
    half[:, :64] = 130
    Image.fromarray(half).save(photos / "class0" / "half_flat.png")
    generate(photos, tmp_path / "shards", "-s", 4, "--fit", "tile")
    report(tmp_path / "shards", tmp_path / "r.html")
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        assert sum("class0/flat.png" in text for text in cards(page, "flattest")) == 1
        assert len(cards(page, "flattest")) == 3, "half of the photos"
        assert "the most extreme tile is shown; excluding it excludes all" in page.locator("#look + p").inner_text()
        assert "half_flat.png" in cards(page, "flattest")[1] and "100% flat" in cards(page, "flattest")[1]
        assert "2 photos with a tile at least 75% flat" in page.locator(".verdict").inner_text()
        captions = page.locator(".photo .faint").all_inner_texts()
        assert any(re.fullmatch(r"\S+ .*other tiles: .+", text) for text in captions)
        assert "None among the measured photos" in page.locator("section[aria-labelledby=alike]").inner_text()


def test_report_of_shards_in_a_store(s3: Bucket, odd_shards: Path, tmp_path: Path) -> None:
    address = s3.put_folder(odd_shards, "shards")
    for shards, page in ((address, "there.html"), (odd_shards, "here.html")):
        report(shards, tmp_path / page, "--samples", 8)
    remote, local = ((tmp_path / name).read_text() for name in ("there.html", "here.html"))
    assert remote.replace(str(address), str(odd_shards)) == local


def test_samples_option_measures_evenly_spread_samples(shards: Path, tmp_path: Path) -> None:
    assert "20 of 80 samples measured" in report(shards, tmp_path / "r.html", "--samples", 10)
    assert "10 of 40 samples were measured, spread evenly" in (tmp_path / "r.html").read_text()
    manifest = open_manifest(shards / "scale_2x")
    survey_result = survey(manifest, 10, lambda _: None)
    by_shard = {record.name: record.samples for record in manifest.shards}
    ranks, first = {}, 0
    for name, count in by_shard.items():
        ranks |= {f"{name}/{number}": first + number for number in range(count)}
        first += count
    assert [ranks[f"{one.sample.tar.stem}/{int(one.sample.key[-5:])}"] for one in survey_result.measured] == list(
        range(0, 40, 4)
    )


def test_page_size_is_limited_for_many_items(browser: Browser, photos: Path, tmp_path: Path) -> None:
    """300 classes, 5,000 failures with long names, three scales."""
    output = tmp_path / "shards"
    generate(photos, output, "-s", 2, 3, 4)
    for folder in output.glob("scale_*"):
        manifest = load_json(folder / "manifest.json")
        manifest["splits"]["train"]["samples_per_class"] = {f"class {n} {'x' * 200}": n + 1 for n in range(300)}
        names = [f"class{n}/{'long ' * 40}{n}.jpg" for n in range(5000)]
        manifest["failures"] = [{"path": name, "reason": f"is {n % 30} times broken"} for n, name in enumerate(names)]
        (folder / "manifest.json").write_bytes(dump_json(manifest))
    report(output, tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size < MAX_PAGE_BYTES
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        text = page.locator("main").inner_text()
        assert "The 30 largest of 301 classes." in text
        assert "the first 300, 4,700 more are in the manifest" in text, "once, because they are the same at all scales"
        assert page.locator(".comparison").count() == 36


def test_page_size_is_limited_for_incompressible_images_and_long_names(tmp_path: Path) -> None:
    """20 groups of 8 equal noise images, each with a name of 2,000 bytes that are not UTF-8."""
    folder = os.fsencode(tmp_path / "photos") + b"".join(b"/" + b'\xff"&' * 70 for _ in range(9))
    os.makedirs(folder)
    for number in range(160):
        noise = np.random.default_rng(number % 20).integers(0, 256, (208, 208, 3), dtype=np.uint8)
        with open(folder + b"/%d.png" % number, "wb") as file:
            Image.fromarray(noise).save(file, "PNG", compress_level=0)
    generate(tmp_path / "photos", tmp_path / "shards", "-s", 4, "--size", 208)
    report(tmp_path / "shards", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_bytes()
    assert len(page) < MAX_PAGE_BYTES
    assert page.count(b"8 photos, equal hashes") >= 2 and re.search(rb"Shown are \d+ of 1\d groups\.", page)
    assert page.count(b'<figure class="comparison"') > 2  # the gallery still fits


@pytest.mark.parametrize("when", ["measured", "shown"])
def test_shard_removed_during_the_report_is_damage(
    when: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another run of `generate` replaced it after its index was read."""
    folder = Path(shutil.copytree(shards / "scale_2x", tmp_path / "scale_2x"))
    target = "shardgen.report.survey.stored_samples" if when == "measured" else "shardgen.report.page.extremes"
    original = stored_samples if when == "measured" else extremes

    def remove_shard(*args: Any) -> Any:
        if when == "measured" and args[1] != "train-000000":
            return original(*args)
        found = original(*args) if when == "measured" else None
        (folder / "train-000000.tar").unlink()
        return found if when == "measured" else original(*args)

    monkeypatch.setattr(target, remove_shard)
    message = report(folder, tmp_path / "r.html", expect=1)
    assert f"cannot read {folder / 'train-000000.tar'}: No such file or directory" in message
    assert "cannot read " in (tmp_path / "r.html").read_text()


def test_damaged_lr_is_reported(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 30)
    generate(photos, tmp_path / "shards", "-s", 4, "--codec", "png", "--val-fraction", 0)
    tar = tmp_path / "shards" / "scale_4x" / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    for sample in load_index(tar.with_suffix(".idx")):
        lr = next(member for member in sample if ".lr." in member.name)
        content[lr.offset : lr.offset + lr.size] = bytes(lr.size)
    tar.write_bytes(content)
    assert "lr.png cannot be decoded as png" in report(tmp_path / "shards", tmp_path / "r.html", expect=1)
    page = (tmp_path / "r.html").read_text()
    assert all(
        page.count(f"<li>sample {sample[0].name.split('.')[0]}: ") <= 1
        for sample in load_index(tar.with_suffix(".idx"))
    )
    assert "BytesIO" not in page
    assert page.count("<li>sample ") >= 12  # the gallery and the most aliased samples


def test_gallery_respects_its_size_limit(shards: Path) -> None:
    survey_result = survey(open_manifest(shards / "scale_2x"), 40, lambda _: None)
    everything = gallery(survey_result, 10**9, 64)
    assert len(everything) == 12
    size_limit = sum(one.num_bytes for one in everything) // 2
    few = gallery(survey_result, size_limit, 64)
    assert 2 <= len(few) < 12 and sum(one.num_bytes for one in few) <= size_limit
    ids = [one.id for one in everything]
    assert {ids[0], ids[-1]} <= {one.id for one in few}  # the extremes are kept
    assert gallery(survey_result, 0, 64) == []


def test_gallery_spans_psnr_and_classes(shards: Path) -> None:
    measured = survey(open_manifest(shards / "scale_3x"), 40, lambda _: None).measured
    psnrs = sorted(one.psnr for one in measured)
    chosen = list(select_representative(measured, 12))
    assert [one.psnr for one in chosen[:2]] == [psnrs[0], psnrs[-1]]
    assert len({one.sample.key for one in chosen}) == 12
    assert {sum(one.class_name == f"class{n}" for one in chosen) for n in range(3)} <= {3, 4, 5}
    ranks = sorted(psnrs.index(one.psnr) for one in chosen)
    assert max(b - a for a, b in pairwise(ranks)) <= 8
    assert list(select_representative([], 5)) == [] and len(list(select_representative(measured[:3], 24))) == 3


# ---- damage and errors


def test_damage_is_reported_and_the_rest_is_shown(browser: Browser, odd_photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "shards"
    generate(odd_photos, output, "-s", 4, "--codec", "png", "--shard-bytes", "50KB")
    folder = output / "scale_4x"
    tars = sorted(folder.glob("train-*.tar"))
    tars[0].unlink()
    content = bytearray(tars[1].read_bytes())
    content[2000:2400] = bytes(400)  # within the first HR
    tars[1].write_bytes(content)
    message = report(folder, tmp_path / "r.html", expect=1)
    assert "Unreadable samples or shards: 2, e.g. shard train-000000: no shard train-000000 in" in message
    assert f"`python -m shardgen verify {folder} --fix`" in message
    with opened(browser, tmp_path / "r.html", **WIDE) as page:
        note = page.locator(".damage").inner_text()
        assert "Damaged at 4" in note and "shard train-000000: " in note
        assert "cannot be decoded as png" in note
        assert page.locator(".comparison").count() > 5
    for tar in folder.glob("*.tar"):
        tar.unlink()
    assert "no sample of" in report(folder, tmp_path / "other.html", expect=1)
    assert not (tmp_path / "other.html").exists()


def test_inconsistent_shards_are_reported(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards / "scale_2x", tmp_path / "scale_2x"))
    manifest = load_json(folder / "manifest.json")
    manifest["settings"]["hr_size"] = 32
    (folder / "manifest.json").write_bytes(dump_json(manifest))
    assert "hr: expected 32 x 32 x 3, found 64 x 64 x 3" in report(folder, tmp_path / "r.html", expect=1)
    folder = Path(shutil.copytree(shards / "scale_2x", tmp_path / "other" / "scale_2x"))
    for tar in folder.glob("*.tar"):
        tar.write_bytes(tar.read_bytes().replace(b'"method": "cubic"', b'"method": "magic"'))
    assert "unknown method 'magic'" in report(folder, tmp_path / "r.html", expect=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such folder: "),
        ("empty", "no shards in "),
        ("file.txt", "file.txt is a file; pass a folder of shards"),
    ],
)
def test_folder_without_shards_is_an_error(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no shards")
    output = report(tmp_path / name, tmp_path / "r.html", expect=2)
    assert message in output
    assert not (tmp_path / "r.html").exists()


def test_shards_without_samples_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "no.jpg").write_bytes(b"")
    generate(tmp_path / "photos", tmp_path / "shards", "--max-failures", "100%", expect=1)
    output = report(tmp_path / "shards", tmp_path / "r.html", expect=2)
    assert "shards has no samples: no photo produced one, e.g. no.jpg (empty file)" in output
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ([0.5], [("0.50 to 0.51", "1")]),
        ([0.5, 0.5001], [("0.50 to 0.51", "2")]),
        ([0.5, 0.52], [("0.50 to 0.51", "1"), ("0.51 to 0.52", "1")]),
    ],
)
def test_histogram_bins_are_as_wide_as_their_labels(values: list[float], rows: list) -> None:
    assert histogram("Brightness", "Mean.", "brightness", values, 1, 2).rows == rows


def test_unwritable_output_is_an_error(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "is a folder; pass the file to write" in report(shards, tmp_path / "folder", expect=2)
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is not a regular file; pass the file to write" in report(shards, tmp_path / "pipe", expect=2)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "file").write_text("")
    assert "cannot write" in report(shards, tmp_path / "file" / "r.html", "--samples", 2, expect=1)
    assert "0 is not in the range" in report(shards, tmp_path / "r.html", "--samples", 0, expect=2)


@pytest.mark.parametrize("damage", ["splits", "failures", "psnr_up_db"])
def test_malformed_manifest_is_an_error(damage: str, shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards / "scale_2x", tmp_path / "scale_2x"))
    manifest = load_json(folder / "manifest.json")
    if damage == "psnr_up_db":
        manifest["splits"]["train"]["psnr_up_db"] = {"mean": "high"}
    else:
        manifest[damage] = 7
    (folder / "manifest.json").write_bytes(dump_json(manifest))
    assert "is incomplete or malformed" in report(folder, tmp_path / "r.html", expect=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no <code>processing_stats.json</code>"), ("{", "is malformed"), ("{}", "stage_seconds")],
)
def test_processing_stats_are_optional(content: str | None, message: str, shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards / "scale_2x", tmp_path / "scale_2x"))
    if content is not None:
        (tmp_path / "processing_stats.json").write_text(content)
    report(folder, tmp_path / "r.html", "--samples", 3)
    assert message in (tmp_path / "r.html").read_text()


def test_names_are_shortened_and_made_distinct() -> None:
    assert short("a\nb") == "a\\nb" and len(short("x" * 500, 60)) == 60
    assert short("begin" + "x" * 200 + "end.jpg", 40).endswith("end.jpg")
    assert distinct(["x" * 50, "x" * 50, "y"], 10) == [short("x" * 50, 10), f"{short('x' * 50, 10)} (2)", "y"]
