"""README.md and README.zh-CN.md: commands, figures and links are the same in both, and figures match the results."""

import json
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest
from docs_commands import slug

from benchmarks.readme_chart import CASES
from shardgen.planning.config import METHODS
from trainer.catalogue import NETWORKS
from trainer.loss_table import LOSSES

ROOT = Path(__file__).parent.parent
NAMES = ("README.md", "README.zh-CN.md")
HAN = "\u4e00-\u9fff"
FULL_WIDTH = "\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f"  # punctuation


class Section(NamedTuple):
    """The text from one heading to the next; `prose` contains the lines outside of blocks and tables."""

    level: int
    heading: str
    blocks: list[str]
    tables: list[list[str]]
    prose: list[str]

    @property
    def rows(self) -> list[str]:
        return [row for table in self.tables for row in table]

    @property
    def text(self) -> str:
        return "\n".join([*self.prose, *self.rows])


def sections(name: str) -> list[Section]:
    found: list[Section] = []
    block: list[str] | None = None
    before = ""
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("```"):
            if block is not None:
                found[-1].blocks.append("\n".join(block))
            block = [line] if block is None else None
        elif block is not None:
            block.append(line)
        elif heading := re.match(r"(#+) (.+)", line):
            found.append(Section(len(heading[1]), heading[2], [], [], []))
        elif line.startswith("|"):
            if not before.startswith("|"):
                found[-1].tables.append([])
            found[-1].tables[-1].append(line)
        else:
            found[-1].prose.append(line)
        before = line
    assert block is None, f"{name}: unterminated block"
    return found


ENGLISH, CHINESE = (sections(name) for name in NAMES)
PAIRS = [pytest.param(*pair, id=pair[0].heading) for pair in zip(ENGLISH, CHINESE, strict=False)]


def without_comments(block: str) -> list[str]:
    return [re.sub(r"(^|\s+)#.*", "", line) for line in block.splitlines()]


def without_code(text: str) -> str:
    """Remove code, HTML comments and link targets."""
    text = re.sub(r"<!--.*?-->", "", text)
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "`", text))


def codes(text: str) -> Counter[str]:
    return Counter(re.findall(r"`([^`]+)`", text))


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d(?:[\d,]*\.?\d)*", without_code(text)))


def _translation(page: Path) -> Path:
    return page if page.name.endswith(".zh.md") else page.with_suffix(".zh.md")


def targets(text: str, page: list[Section], folder: Path = ROOT) -> list[str]:
    """Return sorted link targets: a heading of the page as its number, the other README as `other`.

    A page in Chinese counts as the one in English, without the heading, which is another in each language.
    """
    anchors = {f"#{slug(section.heading)}": f"heading {number}" for number, section in enumerate(page)}
    others = dict.fromkeys(NAMES, "other")
    found = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", text)
    translated = [target for _, target in found if _translation(folder / target.partition("#")[0]).exists()]
    found = [(mark, target.partition("#")[0] if target in translated else target) for mark, target in found]
    found = [(mark, re.sub(r"\.zh\.md(#.*)?$", ".md", target)) for mark, target in found]
    return sorted(mark + anchors.get(target, others.get(target, target)) for mark, target in found)


def assert_tables_are_equal(original: Section, translation: Section) -> None:
    assert [len(table) for table in original.tables] == [len(table) for table in translation.tables]
    for row, other in zip(original.rows, translation.rows, strict=True):
        assert row.count("|") == other.count("|"), (row, other)
        assert codes(row) == codes(other), (row, other)
        assert numbers(row) == numbers(other), (row, other)
        assert row.count("**") == other.count("**"), (row, other)


def test_heading_levels_are_equal() -> None:
    assert [section.level for section in ENGLISH] == [section.level for section in CHINESE]


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_code_links_tables_and_figures_are_equal(english: Section, chinese: Section) -> None:
    pair = (english, chinese)
    blocks, others = ([without_comments(block) for block in section.blocks] for section in pair)
    assert blocks == others
    marks, others = (re.findall("<!--.*?-->", section.text) for section in pair)
    assert marks == others
    prose, other_prose = ("\n".join(section.prose) for section in pair)
    assert codes(prose) == codes(other_prose)
    assert numbers(prose) == numbers(other_prose)
    assert targets(english.text, ENGLISH) == targets(chinese.text, CHINESE)
    assert_tables_are_equal(english, chinese)


def test_readmes_link_to_each_other_at_the_top() -> None:
    for name, other in (NAMES, NAMES[::-1]):
        assert f"]({other})" in "\n".join((ROOT / name).read_text().splitlines()[:4])


@pytest.mark.parametrize("section", CHINESE, ids=lambda section: section.heading)
def test_chinese_typography(section: Section) -> None:
    """Punctuation is full-width, and one space separates Chinese from Latin text, figures and code."""
    for line in [section.heading, *section.prose, *section.rows]:
        text = without_code(re.sub(r"^- ", "", line).replace("**", "")).replace("`", "X")
        text = re.sub(r"!?\[|\]", "", text)  # brackets of links are not rendered
        assert not re.search(rf"[{HAN}X] ?[,;:?!()]|[,;:?!()] ?[{HAN}]|[{HAN}]\.(?!\w)", text), line
        assert not re.search(rf"[{HAN}][A-Za-z0-9]|[A-Za-z0-9%\u00d7][{HAN}]", text), line
        assert not re.search(rf" [{FULL_WIDTH}]|[{FULL_WIDTH}] (?!\|)|  ", text), line


def results(name: str) -> dict[str, dict]:
    return json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text())


def english() -> str:
    return " ".join(" ".join(section.text for section in ENGLISH).split())


def test_readmes_fit_on_a_few_screens() -> None:
    for name in NAMES:
        assert len((ROOT / name).read_text().splitlines()) <= 150, name


def test_rates_match_the_results() -> None:
    rates = {name: case["patches_per_second"]["untouched"] for name, case in results("stream")["cases"].items()}
    chart = (ROOT / "docs/images/patches.svg").read_text()
    for name, case in CASES:
        assert f">{name}<" in chart and f"{rates[case]['median']:,.0f}" in chart, name
    for case in ("ours npy, up, 2 workers", "FFCV raw", "LMDB raw", "online", "loose PNG"):
        assert f" {rates[case]['median']:,.0f}" in ENGLISH[0].text, case
    rounds = zip(rates["ours npy, up, 2 workers"]["rounds"], rates["online"]["rounds"], strict=True)
    ratios = [ours / online for ours, online in rounds]
    assert f"{median(ratios):.0f} times as fast ({min(ratios):.0f}\u2013{max(ratios):.0f} in 3 rounds;" in english()


def test_data_time_of_basicsr_matches_the_results() -> None:
    cases = results("basicsr")["cases"]
    png, ours = (cases[name]["iteration_s"]["median"] for name in ("PNG folders", "shards, launcher"))
    waiting = cases["PNG folders"]["data_s"]["median"]
    expected = f"takes {png:.3f} s from PNG files, of which {waiting:.3f} s are waiting, and {ours:.3f} s from shards"
    assert expected in english()


def test_sizes_match_the_results() -> None:
    codecs = results("choices")["codecs"]
    raw, compressed = codecs["npy"]["with up"]["4x"], codecs["tlc"]["without up"]["4x"]
    assert f"{raw / 1e6:.2f} GB uncompressed, {compressed / 1e6:.2f} GB compressed" in english()


@pytest.mark.parametrize(("noun", "entries"), [("networks", NETWORKS), ("losses", LOSSES), ("methods", METHODS)])
def test_stated_numbers_match_the_tables(noun: str, entries: Collection[str]) -> None:
    stated = re.findall(rf"(\d+) {noun}", english())
    assert stated == [str(len(entries))], f"{noun}: expected {len(entries)} in both READMEs, found {stated}"
