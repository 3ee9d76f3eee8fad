"""Links in the documentation: files and headings exist, and images can be opened."""

import re
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
from docs_commands import ROOT, pages, slug
from PIL import Image

PAGES = [*pages(), "CHANGELOG.md"]
_LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")


@cache
def prose(page: str) -> str:
    """Return the page without code blocks and comments, which contain no links."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


@cache
def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, numbered if repeated."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.*?)$", prose(page), re.MULTILINE):
        name = slug(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title))
        number = next(n for n in range(100) if (f"{name}-{n}" if n else name) not in found)
        found.add(f"{name}-{number}" if number else name)
    return found


def links(page: str) -> list[tuple[bool, str]]:
    """Return every internal link, as whether it is an image and its target."""
    text = re.sub(r"`[^`]*`", "", prose(page))
    return [(bool(mark), target) for mark, target in _LINK.findall(text) if not re.match(r"\w+://|mailto:", target)]


def broken_links(page: str) -> list[str]:
    broken = []
    for is_image, link in links(page):
        name, _, anchor = link.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not path.is_relative_to(ROOT) or not path.exists():
            broken.append(f"{link}: no such file")
        elif path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        elif is_image:
            with Image.open(path) as image:
                image.verify()
        elif anchor and anchor not in anchors(path.relative_to(ROOT).as_posix()):
            broken.append(f"{link}: no such heading")
    return broken


def test_no_link_is_broken() -> None:
    assert {page: broken for page in PAGES if (broken := broken_links(page))} == {}


def test_every_page_is_reachable_from_the_readme_or_the_start_page_of_the_site() -> None:
    seen, waiting = set(), ["README.md", "docs/index.md", "docs/index.zh.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        for link in (link for _, link in links(page) if not link.startswith("#")):
            path = ((ROOT / page).parent / link.partition("#")[0]).resolve()
            for version in (path, path.with_suffix(".zh.md")):  # the site has a switch between languages
                name = version.relative_to(ROOT).as_posix()
                if name.endswith(".md") and version.exists() and name not in seen:
                    waiting.append(name)
    assert set(pages()) - seen == set()


def test_broken_links_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_docs_links.ROOT", tmp_path)
    (tmp_path / "a.md").write_text(
        "# One `two` (three)\n## Twice\n## Twice\n[x](b.md) [x](#one-two-three) [x](#twice-1) [x](#twice-2) "
        "`[x](c.md)` [x](https://d)\n```sh\n[x](e.md)\n```\n![x](f.jpg)\n"
    )
    assert broken_links("a.md") == [
        "b.md: no such file",
        "#twice-2: no such heading",
        "f.jpg: no such file",
    ]


def test_chinese_headings_have_anchors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_docs_links.ROOT", tmp_path)
    (tmp_path / "zh.md").write_text("## 命令、图\n[图](#命令图)\n")
    assert not broken_links("zh.md")
