"""Chinese pages under docs/: code, figures, tables and links are those of the English page, in Chinese typography."""

import re
from pathlib import Path

import pytest
from docs_commands import slug
from test_readmes import assert_tables_are_equal, codes, numbers, sections, targets, without_code, without_comments
from test_readmes import test_chinese_typography as check_typography

ROOT = Path(__file__).parent.parent
CHINESE = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.zh.md"))


def english(page: str) -> str:
    return page.removesuffix(".zh.md") + ".md"


def test_pages_are_found() -> None:
    assert "docs/how-to/installation.zh.md" in CHINESE


@pytest.mark.parametrize("page", CHINESE)
def test_headings_correspond(page: str) -> None:
    assert (ROOT / english(page)).exists(), f"{page} translates a page that does not exist"
    assert [section.level for section in sections(page)] == [section.level for section in sections(english(page))]


@pytest.mark.parametrize("page", CHINESE)
def test_code_figures_tables_and_links_are_equal(page: str) -> None:
    originals, translations = sections(english(page)), sections(page)
    for original, translation in zip(originals, translations, strict=True):
        pair = (original, translation)
        blocks, others = ([without_comments(block) for block in section.blocks] for section in pair)
        assert blocks == others, translation.heading
        marks, others = (re.findall("<!--.*?-->", section.text) for section in pair)
        assert marks == others, translation.heading
        prose, other_prose = ("\n".join([section.heading, *section.prose]) for section in pair)
        assert codes(" ".join(prose.split())) == codes(" ".join(other_prose.split())), translation.heading
        assert numbers(prose) == numbers(other_prose), translation.heading
        links, others = (
            targets(section.text, whole, (ROOT / page).parent)
            for section, whole in zip(pair, (originals, translations), strict=True)
        )
        assert links == others, translation.heading
        assert_tables_are_equal(original, translation)


@pytest.mark.parametrize("page", ["README.zh-CN.md", *CHINESE])
def test_links_lead_to_chinese_pages(page: str) -> None:
    """Links without an anchor; headings of a Chinese page have other anchors than those of the English one."""
    for target in re.findall(r"\]\(([^):#]+)\.md\)", (ROOT / page).read_text()):
        assert target.endswith(".zh") or not ((ROOT / page).parent / f"{target}.zh.md").exists(), target


@pytest.mark.parametrize("page", CHINESE)
def test_typography(page: str) -> None:
    for section in sections(page):
        check_typography(section)


@pytest.mark.parametrize("page", CHINESE)
def test_paragraphs_are_not_wrapped(page: str) -> None:
    """A line break inside a Chinese paragraph is rendered as a space."""
    for section in sections(page):
        for line, after in zip(section.prose, section.prose[1:], strict=False):
            starts_block = re.match(r"(- |\d+\. |!\[|<!--|\*[^*])", after)
            assert not line.strip() or not after.strip() or starts_block or line.startswith("<!--"), (line, after)


@pytest.mark.parametrize("page", CHINESE)
def test_prose_is_chinese(page: str) -> None:
    """Paragraphs that were left in English."""
    for section in sections(page):
        for line in [section.heading, *section.prose]:
            words = re.findall(r"[A-Za-z]{2,}", re.sub(r"`", " ", without_code(line)))
            assert len(words) < 8 or re.search("[\u4e00-\u9fff]", line), line


def test_different_translations_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("test_translations", "test_readmes"):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    table = "\n| a | b |\n|---|---|\n| `x` | 1 |\n"
    text = f"# A\n\nUse `x` 3 times, see [B](b.md#c) and [A](#a).\n\n```sh\nls  # all\n```\n{table}"
    chinese = text.replace("# A", "# 甲").replace("# all", "# 全部").replace("#a)", f"#{slug('甲')})")
    (tmp_path / "a.md").write_text(text)
    (tmp_path / "a.zh.md").write_text(chinese)
    test_code_figures_tables_and_links_are_equal("a.zh.md")
    for old, new in (("3", "4"), ("b.md", "d.md"), ("ls ", "ls -l "), ("| 1 |", "| 2 |"), ("`x` 3", "`y` 3")):
        (tmp_path / "a.zh.md").write_text(chinese.replace(old, new))
        with pytest.raises(AssertionError):
            test_code_figures_tables_and_links_are_equal("a.zh.md")
    (tmp_path / "a.zh.md").write_text("# 甲\n\n第一行\n第二行\n")
    with pytest.raises(AssertionError):
        test_paragraphs_are_not_wrapped("a.zh.md")
    (tmp_path / "a.zh.md").write_text("# 甲\n\n用 `x`,然后\n")
    with pytest.raises(AssertionError):
        test_typography("a.zh.md")
