"""Contact sheets: exact pixels of cells, and the placement of text."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFont

from srshards.imaging import contact_sheet
from srshards.imaging.contact_sheet import GRID_TEXT, Row, grid, save_png

Pixels = NDArray[np.uint8]


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    """Random pixels, which identify a cell."""
    return np.random.default_rng(seed).integers(1, 255, (height, width, 3), dtype=np.uint8)


def positions(drawn: Image.Image, cell: Pixels) -> list[tuple[int, int]]:
    """Return (top, left) of every exact occurrence of the cell."""
    pixels = np.asarray(drawn)
    height, width = cell.shape[:2]
    corners = np.argwhere((pixels == cell[0, 0]).all(axis=2))
    return [(y, x) for y, x in corners.tolist() if np.array_equal(pixels[y : y + height, x : x + width], cell)]


def strip(drawn: Image.Image, top: int, bottom: int) -> NDArray[np.uint8]:
    return np.asarray(drawn)[top:bottom]


def has_text(area: NDArray[np.uint8]) -> bool:
    return len(np.unique(area.reshape(-1, 3), axis=0)) > 4


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    sizes=st.lists(st.tuples(st.integers(5, 60), st.integers(5, 60)), min_size=12, max_size=12),
    captioned=st.booleans(),
)
def test_cells_are_drawn_exactly_in_rows_and_columns(
    shape: tuple[int, int], sizes: list[tuple[int, int]], captioned: bool
) -> None:
    num_rows, num_columns = shape
    cells = [
        [noise(*sizes[row * 3 + column], seed=row * 3 + column) for column in range(num_columns)]
        for row in range(num_rows)
    ]
    drawn = grid([Row(row, "caption" if captioned else "") for row in cells], ["title"] * num_columns)
    found = [[positions(drawn, cell) for cell in row] for row in cells]
    assert all(len(occurrences) == 1 for row in found for occurrences in row), "a cell is missing or covered"
    for row in found:
        assert len({occurrences[0][0] for occurrences in row}) == 1, "the cells of a row are not aligned"
    for column in range(num_columns):
        assert len({row[column][0][1] for row in found}) == 1, "the cells of a column are not aligned"


def test_png_metadata_contains_the_boxes_of_cells(tmp_path: Path) -> None:
    cells = [noise(*size, seed) for seed, size in enumerate([(20, 90), (30, 70), (25, 80), (25, 60)])]
    aside = "\udc80/\N{CJK UNIFIED IDEOGRAPH-5C71}.jpg"
    drawn = grid([Row(cells[:2], "first", aside), Row(cells[2:])], ["a", "b"])
    save_png(drawn, tmp_path / "grid.png", "trainer train")
    with Image.open(tmp_path / "grid.png") as picture:
        found = json.loads(picture.text[GRID_TEXT])
        pixels = np.asarray(picture)
    assert np.array_equal(pixels, np.asarray(drawn))
    assert found["titles"] == ["a", "b"]
    assert [(row["caption"], row["aside"]) for row in found["rows"]] == [("first", aside), ("", "")]
    boxes = [box for row in found["rows"] for box in row["cells"]]
    for cell, (left, top, width, height) in zip(cells, boxes, strict=True):
        assert np.array_equal(pixels[top : top + height, left : left + width], cell)


def test_titles_captions_and_asides_are_placed() -> None:
    cells = [noise(60, 200, seed) for seed in range(4)]
    named = grid([Row(cells[:2], "first 1.23 dB"), Row(cells[2:], "", "sky/img1.jpg")], ["bicubic", "network"])
    (top, left), (below, right) = positions(named, cells[0])[0], positions(named, cells[3])[0]
    assert has_text(strip(named, 0, top)[:, left : left + 200]) and has_text(strip(named, 0, top)[:, right:])
    assert has_text(strip(named, top + 60, below)[:, :right]), "the caption is on the left"
    assert not has_text(strip(named, top + 60, below)[:, right:])
    assert has_text(strip(named, below + 60, named.height)[:, right:]), "the aside is on the right"
    assert not has_text(strip(named, below + 60, named.height)[:, :right])


def test_tuples_of_cells_and_caption_are_rows() -> None:
    cells = [noise(20, 90, 0), noise(20, 90, 1)]
    pair: tuple[list[Pixels], str] = (cells, "caption")
    drawn, expected = (np.asarray(grid([row], ["a", "b"])) for row in (pair, Row(cells, "caption")))
    assert np.array_equal(drawn, expected)


@pytest.mark.parametrize("text", ["x" * 500, "山" * 300, "a\nb\tc\x1b[31m", "\udcff\udcfe.jpg", "", " ", "é ğ … →"])
def test_any_text_stays_within_its_line(text: str) -> None:
    """Text never overlaps the cells or the edge."""
    cells = [noise(30, 70, 0), noise(30, 70, 1)]
    drawn = grid([Row(cells, text, text), Row(cells[::-1], text, text)], [text, text])
    background = np.asarray(drawn)[0, 0]
    assert all(len(positions(drawn, cell)) == 2 for cell in cells)
    edges = np.asarray(drawn)[:, [0, 1, 2, -3, -2, -1]]
    assert (edges == background).all(), "text on the edge"
    assert drawn.width == 2 * 70 + 3 * 8


def test_long_captions_keep_the_start_and_asides_the_end() -> None:
    cell = [noise(20, 300)]
    long = grid([Row(cell, "begin" + "i" * 300)], ["t"])
    longer = grid([Row(cell, "begin" + "i" * 300 + "end")], ["t"])
    assert np.array_equal(np.asarray(long), np.asarray(longer))
    aside = grid([Row(cell, "", "i" * 300 + "/img.jpg")], ["t"])
    asides = grid([Row(cell, "", "begin" + "i" * 300 + "/img.jpg")], ["t"])
    assert np.array_equal(np.asarray(aside), np.asarray(asides))
    assert not np.array_equal(np.asarray(long), np.asarray(aside))


def test_caption_and_aside_do_not_overlap() -> None:
    cell = [noise(20, 300)]
    both = np.asarray(grid([Row(cell, "i" * 60, "j" * 300)], ["t"])).astype(int)
    alone = np.asarray(grid([Row(cell, "i" * 60)], ["t"])).astype(int)
    written = np.nonzero((alone[52:] != alone[0, 0]).any(axis=(0, 2)))[0].max() + 1
    assert np.array_equal(both[:, :written], alone[:, :written])


def test_cjk_font_is_used_for_chinese_names(monkeypatch: pytest.MonkeyPatch) -> None:
    requested = []
    original = ImageFont.truetype

    def truetype(font: object, *args: object, **options: object) -> object:
        if not isinstance(font, str):  # Pillow's built-in font
            return original(font, *args, **options)
        requested.append(font)
        if font == "wqy-zenhei.ttc":
            return ImageFont.load_default(14)
        raise OSError("cannot open resource")

    monkeypatch.setattr(ImageFont, "truetype", truetype)
    monkeypatch.setattr(contact_sheet, "_has_glyphs", lambda font, text: True)
    grid([Row([noise(20, 90)], "山/img1.jpg")], ["t"])
    assert requested[-1] == "wqy-zenhei.ttc" and "NotoSansCJK-Regular.ttc" in requested
    requested.clear()
    grid([Row([noise(20, 90)], "café … ğ")], ["t"])
    assert not requested, "Pillow's built-in font has Latin letters"


def test_names_that_no_font_can_draw_are_omitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there is a font for other scripts: it would draw equal boxes."""
    original = ImageFont.truetype

    def truetype(font: object, *args: object, **options: object) -> object:
        if font == "DejaVuSans.ttf":
            return ImageFont.load_default(14)  # Latin letters
        if isinstance(font, str):
            raise OSError("cannot open resource")
        return original(font, *args, **options)

    monkeypatch.setattr(ImageFont, "truetype", truetype)
    drawn, nameless = (grid([Row([noise(20, 300)], "64 x 64 px", name)], ["t"]) for name in ("山水.jpg", ""))
    assert np.array_equal(np.asarray(drawn), np.asarray(nameless))
    assert "山水.jpg" in json.loads(drawn.info[GRID_TEXT])["rows"][0]["aside"]


def test_missing_fonts_are_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ImageFont.truetype

    def missing(font: object, *args: object, **options: object) -> object:
        if isinstance(font, str):
            raise OSError("cannot open resource")
        return original(font, *args, **options)

    monkeypatch.setattr(ImageFont, "truetype", missing)
    cell = noise(20, 90)
    assert len(positions(grid([Row([cell], "山")], ["水"]), cell)) == 1


@pytest.mark.parametrize(
    ("rows", "titles"),
    [([], ["a"]), ([Row([])], []), ([Row([noise(5, 5)])], ["a", "b"]), ([Row([noise(5, 5)] * 2)], ["a"])],
)
def test_rows_that_do_not_match_the_titles_are_rejected(rows: list[Row], titles: list[str]) -> None:
    with pytest.raises(ValueError, match=f"expected rows of {len(titles)} cells, got"):
        grid(rows, titles)
